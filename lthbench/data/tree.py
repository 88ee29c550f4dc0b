"""Folders of images: ImageNet's and Tiny-ImageNet's layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lthbench.data.error import DataError, cure, missing
from lthbench.data.spec import DATASETS

SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
# ImageNet-100 by the list of Tian et al. 2020 (CMC): the file's place in the data folder, and what it must hold.
CMC_LIST = "imagenet100.txt"
CMC_ID = "5ee5db69"
CMC_ORIGIN = "imagenet100.txt of github.com/HobbitLong/CMC"


@dataclass(frozen=True)
class Tree:
    """What a folder of images holds.

    Attributes:
        classes: folder names (WordNet ids), sorted; a label is the place in this list.
        train, test: (file, label) of each image, by class and name. `test` is the original validation split.
    """

    classes: list[str]
    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]]


def scan(name: str, root: Path, class_list: Path | None = None) -> Tree:
    """List the images of data set `name` below the data folder `root`.

    Three layouts are read: train/<class>/*.JPEG and val/<class>/*.JPEG (ImageFolder); the same with a folder
    `images` in each class; and Tiny-ImageNet's archive, whose val/images are labelled by val/val_annotations.txt.

    Args:
        class_list: a file of one class a line; only these are read. None is the data set's own choice.

    Raises:
        DataError: a folder, class or annotation is missing, or there are more or fewer images than there must be.
    """
    info = DATASETS[name]
    folder = root / info.folder
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            raise missing(name, folder / split, "one folder a class")
    classes = _classes(name, folder, class_list)
    train = [(file, label) for label, c in enumerate(classes) for file in _images(folder / "train" / c)]
    annotations = folder / "val" / "val_annotations.txt"
    if annotations.is_file():
        test = _annotated(name, annotations, classes)
    else:
        test = [(file, label) for label, c in enumerate(classes) for file in _images(folder / "val" / c)]
    for split, found, expected in (("train", train, info.num_train), ("val", test, info.num_test)):
        counts = [0] * len(classes)
        for _, label in found:
            counts[label] += 1
        if 0 in counts:
            raise DataError(f"{name}: {folder / split} has no image of {classes[counts.index(0)]}; {cure(name)}")
        # Another class list has another number of train images.
        if len(found) != expected and not (class_list and split == "train"):
            raise DataError(
                f"{name}: {folder / split} holds {len(found):,} images of {len(classes)} classes, "
                f"expected {expected:,}; unpack it again, then {cure(name)}"
            )
    return Tree(classes, train, test)


def read_class_list(path: Path, num_classes: int) -> list[str]:
    """Read a file of one class a line; returns them sorted.

    Raises:
        DataError: it cannot be read, or has another number of different classes.
    """
    try:
        lines = [line.split()[0] for line in path.read_text().splitlines() if line.split()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the class list cannot be read ({error})") from error
    if len(set(lines)) != num_classes or len(lines) != num_classes:
        raise DataError(
            f"{path}: has {len(set(lines))} different classes on {len(lines)} lines, expected {num_classes}"
        )
    return sorted(lines)


def class_list_id(classes: Iterable[str]) -> str:
    """Return eight hex digits that name a set of classes: SHA-256 of the sorted ids, one a line."""
    return hashlib.sha256("".join(f"{c}\n" for c in sorted(classes)).encode()).hexdigest()[:8]


def _classes(name: str, folder: Path, class_list: Path | None) -> list[str]:
    """The classes to read, sorted; each must be a folder of train."""
    info = DATASETS[name]
    there = {path.name for path in (folder / "train").iterdir() if path.is_dir()}
    if class_list is None and name == "imagenet100":
        wanted = cmc_classes(name, folder)
    else:
        wanted = read_class_list(class_list, info.num_classes) if class_list else sorted(there)
    absent = [c for c in wanted if c not in there]
    if absent:
        raise missing(name, folder / "train" / absent[0], f"{len(wanted)} classes ({len(absent)} are not there)")
    if len(wanted) != info.num_classes:
        found = f"{len(wanted)} classes"
        raise DataError(f"{name}: {folder / 'train'} has {found}, expected {info.num_classes}; {cure(name)}")
    return wanted


def cmc_classes(name: str, folder: Path) -> list[str]:
    """The classes of ImageNet-100, from the list that lies beside the images."""
    path = folder / CMC_LIST
    if not path.is_file():
        raise DataError(f"{name}: {path} is missing; put {CMC_ORIGIN} there, or give another list by --classes FILE")
    classes = read_class_list(path, DATASETS[name].num_classes)
    if class_list_id(classes) != CMC_ID:
        raise DataError(
            f"{name}: {path} holds other classes ({class_list_id(classes)}) than {CMC_ORIGIN} ({CMC_ID}); "
            "put that file there, or give yours by --classes FILE"
        )
    return classes


def _images(folder: Path) -> list[Path]:
    """The image files of one class, sorted by name."""
    if (folder / "images").is_dir():
        folder = folder / "images"
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _annotated(name: str, annotations: Path, classes: list[str]) -> list[tuple[Path, int]]:
    """Tiny-ImageNet's validation images: lines of file name, class and a box, separated by tabs."""
    labels = {c: label for label, c in enumerate(classes)}
    found = []
    for number, line in enumerate(annotations.read_text().splitlines(), 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in labels:
            raise DataError(f"{name}: {annotations}, line {number}: expected a file name and a class, got {line!r}")
        file = annotations.parent / "images" / Path(fields[0]).name
        if not file.is_file():
            raise missing(name, file, f"the image that line {number} of {annotations} names")
        found.append((file, labels[fields[1]]))
    return sorted(found, key=lambda image: (image[1], image[0].name))
