"""Where own data sets come from: folders of images, arrays, and those that torchvision reads; each with its two splits.

Nothing that is read here can run code: images are decoded by Pillow, arrays are mapped without pickles, and of
torchvision those readers alone are used whose files are images, matrices or plain bytes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lthbench.data.error import DataError
from lthbench.data.folder import Folders, read_list
from lthbench.data.idx import read_idx
from lthbench.data.prepare import Source, image_size, tree_source
from lthbench.data.strata import random_words, stratified_order

TEST_FOLDERS = ("test", "val")
TORCHVISION = ("svhn", "kmnist", "emnist", "stl10", "food101")
_Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # of images and labels


class Division(NamedTuple):
    """How a test split is taken from images that have none: this share, stratified, drawn by a seed."""

    share: float = 0.2
    seed: int = 0


_A_FIFTH = Division()


@dataclass(frozen=True)
class Wanted:
    """What an own data set is made of and how its images are stored.

    Attributes:
        folder: of images, in one folder per class: below `train`, and `test` or `val`, or without these for one split.
        arrays, test_arrays: files of images, uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], and of labels, [N].
        torchvision: a set that torchvision reads, one of TORCHVISION; of EMNIST a part too, as `emnist:letters`.
        size: images of folders are resized so that the shorter edge has so many pixels, of which the centre is taken;
            None is as they are.
        grey: images of folders are stored grey.
        split: how a test split is taken where none is given.
    """

    folder: Path | None = None
    arrays: tuple[Path, Path] | None = None
    test_arrays: tuple[Path, Path] | None = None
    torchvision: str | None = None
    size: int | None = None
    grey: bool = False
    split: Division = _A_FIFTH


def source_of(name: str, wanted: Wanted, root: Path) -> Source:
    """What an own data set is prepared from.

    Raises:
        DataError: images or labels are missing, cannot be read, or do not fit together.
    """
    given = [wanted.folder is not None, wanted.arrays is not None, wanted.torchvision is not None]
    if sum(given) != 1:
        raise DataError(f"{name}: give one of --folder DIR, --arrays IMAGES LABELS and --torchvision SET")
    if wanted.folder is not None:
        return _of_folder(name, wanted.folder, wanted)
    if wanted.size or wanted.grey:
        raise DataError(f"{name}: --size and --grey are for folders; `image_size` in a suite resizes any data set")
    if wanted.arrays is not None:
        return _of_arrays(name, wanted.arrays, wanted.test_arrays, wanted.split)
    return _of_torchvision(name, wanted.torchvision or "", wanted, root)


def _of_folder(name: str, folder: Path, wanted: Wanted) -> Source:
    folders = Folders(name)
    if not folder.is_dir():
        raise DataError(f"{name}: {folder} is no folder; give the one that holds a folder of images for each class")
    origin = str(folder.resolve())
    if (folder / "train").is_dir():
        held_out = [part for part in TEST_FOLDERS if (folder / part).is_dir()]
        if not held_out:
            raise DataError(
                f"{name}: {folder} has train, but neither test nor val; make one, or give {folder / 'train'}"
            )
        classes = folders.classes(folder / "train")
        for other in sorted(set(folders.classes(folder / held_out[0])) - set(classes)):
            raise DataError(f"{name}: {folder / held_out[0] / other} is the folder of no class of train; delete it")
        splits = {
            split: [(file, label) for label, c in enumerate(classes) for file in folders.images(folder / part / c)]
            for split, part in (("train", "train"), ("test", held_out[0]))
        }
    else:
        classes = folders.classes(folder)
        files = [(file, label) for label, c in enumerate(classes) for file in folders.images(folder / c)]
        splits, origin = _split(name, files, [label for _, label in files], origin, wanted.split)
    return _tree(name, classes, splits, dict(folders.skipped), origin, wanted)


def _tree(
    name: str,
    classes: list[str],
    splits: dict[str, list[tuple[Path, int]]],
    skipped: dict[str, int],
    origin: str,
    wanted: Wanted,
) -> Source:
    _check(name, classes, {split: [label for _, label in files] for split, files in splits.items()})
    if wanted.size is None:
        sizes = {image_size(name, file) for files in splits.values() for file, _ in files}
        if len(sizes) > 1:
            told = ", ".join(f"{w} x {h}" for w, h in itertools.islice(sorted(sizes), 3))
            raise DataError(
                f"{name}: the images have {len(sizes)} sizes ({told}, ...); give --size PIXELS, to which the shorter "
                "edge is resized"
            )
    return tree_source(name, classes, splits, wanted.size, skipped, origin=origin, grey=wanted.grey)


def _of_arrays(name: str, train: tuple[Path, Path], test: tuple[Path, Path] | None, split: Division) -> Source:
    given = {"train": _arrays(name, *train), **({"test": _arrays(name, *test)} if test else {})}
    origin = ", ".join(str(path.resolve()) for pair in (train, test) if pair for path in pair)
    return _of_images(name, given, origin, split)


def _arrays(name: str, images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images, mapped, and labels; checked but for the values of labels."""
    found = []
    for path in (images, labels):
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
            raise DataError(f"{name}: {path} cannot be read as an array ({error}); save it by numpy.save") from error
        if not isinstance(array, np.ndarray):
            raise DataError(f"{name}: {path} holds several arrays; save one by numpy.save")
        found.append(array)
    pixels, numbers = found
    if pixels.dtype != np.uint8:
        raise DataError(f"{name}: {images} holds {pixels.dtype}, expected uint8 from 0 to 255; convert it")
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or len(numbers) != len(pixels):
        raise DataError(
            f"{name}: {labels} holds {numbers.dtype} {numbers.shape}, expected whole numbers ({len(pixels)},), one for "
            f"each image of {images}"
        )
    return _plain(name, pixels, str(images)), np.array(numbers, np.int64)


def _plain(name: str, pixels: np.ndarray, place: str) -> np.ndarray:
    """Images as [N, H, W] or [N, H, W, 3]."""
    if pixels.ndim == 4 and pixels.shape[3] not in (1, 3) and pixels.shape[1] in (1, 3):
        pixels = pixels.transpose(0, 2, 3, 1)
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3) or 0 in pixels.shape:
        raise DataError(
            f"{name}: {place} has shape {pixels.shape}, expected images [N, H, W], or [N, H, W, C] or [N, C, H, W] "
            "of 1 or 3 channels"
        )
    return pixels


def _of_images(
    name: str,
    given: dict[str, tuple[np.ndarray, np.ndarray]],
    origin: str,
    split: Division,
    classes: Sequence[str] = (),
) -> Source:
    """A source of arrays, in one split or two; labels are numbered anew in their order."""
    values = np.unique(np.concatenate([labels for _, labels in given.values()]))
    shapes = {images.shape[1:] for images, _ in given.values()}
    if len(shapes) > 1:
        raise DataError(f"{name}: train and test images have other shapes: {' and '.join(map(str, shapes))}")
    numbered = {part: np.searchsorted(values, labels) for part, (_, labels) in given.items()}
    rows: dict[str, tuple[str, np.ndarray]] = {part: (part, np.arange(len(its))) for part, its in numbered.items()}
    if "test" not in given:
        chosen, origin = _split(name, list(range(len(numbered["train"]))), numbered["train"], origin, split)
        rows = {part: ("train", np.array(its, np.int64)) for part, its in chosen.items()}
    labels = {part: numbered[of][its] for part, (of, its) in rows.items()}
    names = [classes[value] if value < len(classes) else str(value) for value in values.tolist()]
    _check(name, names, labels)

    def read(part: str, start: int, stop: int) -> np.ndarray:
        of, its = rows[part]
        images = np.asarray(given[of][0][its[start:stop]])
        if images.ndim == 3:
            return images
        return np.concatenate([images, np.zeros_like(images[..., :1])], axis=3)

    shape = next(iter(shapes))
    form = (*shape[:2], 4) if len(shape) == 3 else shape
    digest = hashlib.sha256(origin.encode())
    for part, (images, its) in given.items():
        digest.update(f"{part} {images.shape} {len(its)}".encode() + its.tobytes())
    return Source(names, labels, form, read, digest.hexdigest(), {}, origin)


def _split(name: str, items: list[Any], labels: Any, origin: str, split: Division) -> tuple[dict[str, list[Any]], str]:
    """Divide images into train and test, each in the order that they have; and their origin with how that was done."""
    key = int.from_bytes(hashlib.sha256(f"test split {split.seed}".encode()).digest()[:8], "little")
    order = stratified_order(np.asarray(labels, np.int64), random_words(len(items), key))
    chosen = set(order[: max(1, round(split.share * len(items)))].tolist())
    parts = {
        part: [item for position, item in enumerate(items) if (position in chosen) == (part == "test")]
        for part in ("train", "test")
    }
    return parts, f"{origin}; test: {split.share:.0%} of each class, seed {split.seed}"


def _check(name: str, classes: Sequence[str], labels: dict[str, Any]) -> None:
    """Refuse what cannot be learned: fewer than two classes, or one without a train image."""
    if len(classes) < 2:
        raise DataError(
            f"{name}: {len(classes)} classes were found, expected two at least, in a folder or a label each"
        )
    found = np.bincount(np.asarray(labels["train"], np.int64), minlength=len(classes))
    for c, number in zip(classes, found, strict=True):
        if not number:
            raise DataError(f"{name}: class {c} has no train image; give it some, or leave it out")
    if not len(labels["test"]):
        raise DataError(f"{name}: there is no test image; give some, or a single folder of classes, which is divided")


def _of_torchvision(name: str, text: str, wanted: Wanted, root: Path) -> Source:
    """What torchvision reads below the data folder; nothing is fetched."""
    kind, _, part = text.lower().partition(":")
    if kind not in TORCHVISION or (part and kind != "emnist"):
        raise DataError(f"{name}: --torchvision {text}: expected one of {', '.join(TORCHVISION)}, or emnist:letters")
    if kind == "food101":
        return _food101(name, root, wanted)
    given, classes = (_idx if kind in ("kmnist", "emnist") else _read_by_torchvision)(name, kind, part, root)
    for split, (images, labels) in given.items():
        if len(images) != len(labels):
            raise DataError(
                f"{name}: {kind} below {root} has {len(images):,} {split} images and {len(labels):,} labels; fetch its "
                "files again"
            )
    return _of_images(name, given, f"{kind}{':' + part if part else ''} as torchvision reads it", wanted.split, classes)


def _idx(name: str, kind: str, part: str, root: Path) -> tuple[_Splits, Sequence[str]]:
    """KMNIST and EMNIST, without torchvision's reader, which would take up pickles of its earlier versions."""
    from torchvision import datasets

    if kind == "kmnist":
        folder, classes, words = root / "KMNIST" / "raw", datasets.KMNIST.classes, ("train-", "t10k-")
    else:
        part = part or "balanced"
        if part not in datasets.EMNIST.splits:
            raise DataError(f"{name}: emnist has no part {part}, but {', '.join(datasets.EMNIST.splits)}")
        folder, classes = root / "EMNIST" / "raw", datasets.EMNIST.classes_split_dict[part]
        words = f"emnist-{part}-train-", f"emnist-{part}-test-"
    return {
        split: (
            read_idx(name, folder / f"{word}images-idx3-ubyte", rank=3),
            read_idx(name, folder / f"{word}labels-idx1-ubyte", rank=1).astype(np.int64),
        )
        for split, word in zip(("train", "test"), words, strict=True)
    }, classes


def _read_by_torchvision(name: str, kind: str, part: str, root: Path) -> tuple[_Splits, Sequence[str]]:
    """SVHN and STL10, whose files torchvision compares with their MD5 before it reads them."""
    from torchvision import datasets

    given: _Splits = {}
    classes: Sequence[str] = ()
    for split in ("train", "test"):
        try:
            found: Any = {"svhn": datasets.SVHN, "stl10": datasets.STL10}[kind](str(root), split=split)
        except Exception as error:  # whatever its readers make of a damaged file
            text = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(
                f"{name}: torchvision cannot read {kind} below {root} ({text}); put its files there"
            ) from error
        classes = getattr(found, "classes", ())
        given[split] = _plain(name, np.asarray(found.data), f"{kind} of torchvision"), found.labels.astype(np.int64)
    return given, classes


def _food101(name: str, root: Path, wanted: Wanted) -> Source:
    folder = root / "food-101"
    classes = sorted(filter(None, read_list(folder / "meta" / "classes.txt")))
    number = {c: label for label, c in enumerate(classes)}
    splits = {}
    for split in ("train", "test"):
        lines = list(filter(None, read_list(folder / "meta" / f"{split}.txt")))
        for line in lines:
            if line.count("/") != 1 or line.partition("/")[0] not in number:
                raise DataError(f"{name}: {folder / 'meta' / split}.txt: expected class/number, got {line!r}")
        splits[split] = [(folder / "images" / f"{line}.jpg", number[line.partition("/")[0]]) for line in lines]
    return _tree(name, classes, splits, {}, "food101", wanted)
