"""Folders of images: ImageNet's and Tiny-ImageNet's layouts."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lthbench.data.error import DataError, cure, missing
from lthbench.data.folder import Folders, read_list, same_name
from lthbench.data.spec import DATASETS

# ImageNet-100 by the list of Tian et al. 2020 (CMC): the file's place in the data folder, and what it must hold.
CMC_LIST = "imagenet100.txt"
CMC_ID = "5ee5db69"
CMC_ORIGIN = "imagenet100.txt of github.com/HobbitLong/CMC"
ANNOTATIONS = "val_annotations.txt"  # of Tiny-ImageNet: file name, class and box, separated by tabs, one image per line


@dataclass(frozen=True)
class Tree:
    """What a folder of images holds.

    Attributes:
        classes: folder names (WordNet ids), sorted; a label is the place in this list.
        train, test: (file, label) of each image, by class and name. `test` is the original validation split.
        skipped: how many files and folders are no part of a data set, by name or pattern (lthbench.data.folder).
    """

    classes: list[str]
    train: list[tuple[Path, int]]
    test: list[tuple[Path, int]]
    skipped: dict[str, int]


def scan(name: str, root: Path, class_list: Path | None = None) -> Tree:
    """List the images of data set `name` below the data folder `root`.

    Three layouts are read: train/<class>/*.JPEG and val/<class>/*.JPEG (ImageFolder); the same with a folder
    `images` in each class; and Tiny-ImageNet's archive, whose val/images are labelled by val/val_annotations.txt, all
    of them still there or some sorted into folders of their classes.

    Args:
        class_list: a file of one class per line; only these are read. None is the data set's own choice.

    Raises:
        DataError: a folder, class, image or annotation is missing, unreadable or there twice, two of them contradict
            each other, or there are more or fewer images than there must be.
    """
    info = DATASETS[name]
    folder = root / info.folder
    for split in ("train", "val"):
        if not (folder / split).is_dir():
            raise missing(name, folder / split, "one folder per class")
    folders = Folders(name)
    classes = _classes(folders, folder, class_list)
    train = {c: folders.images(folder / "train" / c) for c in classes}
    test = _validation_images(folders, folder / "val", classes, chosen=class_list is not None or name == "imagenet100")
    for split, found, expected in (("train", train, info.num_train), ("val", test, info.num_test)):
        # Another class list has another number of train images.
        _check_counts(name, folder / split, found, None if class_list and split == "train" else expected)
    return Tree(classes, _labelled(train), _labelled(test), dict(folders.skipped))


def _labelled(found: dict[str, list[Path]]) -> list[tuple[Path, int]]:
    """The images of all classes, each with its class's place among them."""
    return [(file, label) for label, files in enumerate(found.values()) for file in files]


def _check_counts(name: str, folder: Path, found: dict[str, list[Path]], expected: int | None) -> None:
    """Raise DataError where a class has no image, or all have another number of them than `expected`."""
    for c, images in found.items():
        if not images:
            raise DataError(f"{name}: {folder} has no image of {c} (JPEG or PNG in {folder / c}); {cure(name)}")
    total = sum(map(len, found.values()))
    if expected is None or total == expected:
        return
    odd, info = "", DATASETS[name]
    if info.balanced:
        each = expected // info.num_classes
        others = (f" ({c} has {len(images):,}, not {each:,})" for c, images in found.items() if len(images) != each)
        odd = next(others, "")
    raise DataError(
        f"{name}: {folder} holds {total:,} images of {len(found)} classes, expected {expected:,}{odd}; "
        f"unpack it again, then {cure(name)}"
    )


def read_class_list(path: Path, num_classes: int) -> list[str]:
    """Read a file of one class per line; returns them sorted.

    Raises:
        DataError: it cannot be read, or has another number of different classes.
    """
    lines = [line.split()[0] for line in read_list(path) if line.split()]
    if len(set(lines)) != num_classes or len(lines) != num_classes:
        twice = next((f" ({c} is on several)" for c, number in Counter(lines).items() if number > 1), "")
        raise DataError(
            f"{path}: has {len(set(lines))} different classes on {len(lines)} lines, expected {num_classes}{twice}"
        )
    return sorted(lines)


def class_list_id(classes: Iterable[str]) -> str:
    """Return eight hex digits that name a set of classes: SHA-256 of the sorted ids, one per line."""
    return hashlib.sha256(os.fsencode("".join(f"{c}\n" for c in sorted(classes)))).hexdigest()[:8]


def _classes(folders: Folders, folder: Path, class_list: Path | None) -> list[str]:
    """The classes to read, sorted; each must be a folder of train."""
    name = folders.name
    info = DATASETS[name]
    there = folders.classes(folder / "train")
    if class_list is None and name == "imagenet100":
        wanted = cmc_classes(name, folder)
    else:
        wanted = read_class_list(class_list, info.num_classes) if class_list else there
    absent = sorted(set(wanted) - set(there))
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


def _validation_images(folders: Folders, val: Path, classes: list[str], *, chosen: bool) -> dict[str, list[Path]]:
    """The validation images of each class, sorted by name.

    Args:
        chosen: other classes than these may lie there too.
    """
    name = folders.name
    sorted_in = folders.classes(val)
    unsorted = {path.name.lower(): path for path in folders.images(val / "images")} if "images" in sorted_in else {}
    found = {c: folders.images(val / c) for c in classes}
    for c in set(sorted_in) - set(classes) - {"images"} if not chosen else ():
        raise DataError(f"{name}: {val / c} is the folder of no class that {val.parent / 'train'} has; delete it")
    annotations = val / ANNOTATIONS
    if annotations.exists():
        return _annotated(name, annotations, unsorted, found)
    if unsorted:
        raise missing(name, annotations, f"the classes of the {len(unsorted):,} images in {val / 'images'}")
    for c in classes:
        if c not in sorted_in:
            raise missing(name, val / c, "the images of a class that train has")
    return found


def _annotated(
    name: str, annotations: Path, unsorted: dict[str, Path], found: dict[str, list[Path]]
) -> dict[str, list[Path]]:
    """Tiny-ImageNet's validation images, `unsorted` or `found` in their classes' folders, each where it is annotated.

    Raises:
        DataError: an image is named twice or not at all, is not there, or lies with another class.
    """
    placed: dict[str, tuple[str, Path]] = {}
    for c, path in ((c, path) for c, paths in found.items() for path in paths):
        if (other := placed.setdefault(path.name.lower(), (c, path))) != (c, path):
            raise same_name(name, other[1], path)
    lines: dict[str, int] = {}
    images: dict[str, list[Path]] = {c: [] for c in found}
    for number, line in enumerate(read_list(annotations), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in found:
            raise DataError(f"{name}: {annotations}, line {number}: expected a file name and a class, got {line!r}")
        file, c = Path(fields[0]).name, fields[1]
        key = file.lower()
        if lines.setdefault(key, number) != number:
            raise DataError(
                f"{name}: {annotations}, line {number}: names {file}, as line {lines[key]} does; unpack it again"
            )
        if key not in placed and key not in unsorted:
            place = annotations.parent / "images" / file
            raise missing(name, place, f"the image that line {number} of {annotations} names, there or in {c}")
        folder, path = placed[key] if key in placed else (c, unsorted[key])
        if folder != c:
            raise DataError(f"{name}: {path} lies with {folder}, but line {number} of {annotations} says {c}; move it")
        images[c].append(unsorted.get(key, path))
    for key, path in (*unsorted.items(), *((key, path) for key, (_, path) in placed.items())):
        if key not in lines:
            raise DataError(f"{name}: {path} is an image that no line of {annotations} names; delete it")
    return {c: sorted(paths, key=lambda path: path.name) for c, paths in images.items()}
