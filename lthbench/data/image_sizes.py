"""Data sets at another size than their own, as a suite asks by `image_size`: resized once, and kept in the data folder.

DATA/prepared/<name>-<side>px/ holds them as `lthbench.data.prepare` writes them. The embedded set, which needs no data
folder, is resized when it is read, and so is any other whose folder cannot be written to: the pixels are the same.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from lthbench.data import prepared
from lthbench.data.datasets import DATASETS
from lthbench.data.images import pack
from lthbench.data.prepare import MANIFEST, Source, folder_of, prepare_from, resize_shorter_edge
from lthbench.data.reading import read_split


def read_resized(
    name: str, root: Path | None, split: str, side: int, class_list: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Map one split of a data set whose images are resized to `side` x `side` pixels; the first call resizes them.

    Pillow's antialiased bilinear on whole numbers of the stored images, the shorter edge to `side`, then the centre.

    Returns:
        pixels, uint8 grey or int32 packed [N, side, side], and labels int64 [N].

    Raises:
        DataError: the data set is not there, or not whole, or what is kept of the resized images is not.
    """
    if root is None or DATASETS[name].kind == "sheets":
        return _in_memory(name, root, split, side, class_list)
    folder = folder_of(name, root, class_list)
    folder = folder.with_name(f"{folder.name}-{side}px")
    if not (folder / MANIFEST).is_file():
        try:
            source = _source(name, root, side, class_list)
            prepare_from(folder, name, source, more=lambda *_: {"resized_from": source.fingerprint})
        except OSError:  # no place to keep them
            return _in_memory(name, root, split, side, class_list)
    return prepared.read_resized(name, folder, split, side, _identity(name, root, class_list))


def _in_memory(
    name: str, root: Path | None, split: str, side: int, class_list: str | None
) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_split(name, root, split, class_list)
    return _resized(_packed(images), side), labels


def _source(name: str, root: Path, side: int, class_list: str | None) -> Source:
    """The images as they are, of which a preparation makes resized ones."""
    splits = {split: read_split(name, root, split, class_list) for split in ("train", "test")}
    form = (side, side) if DATASETS[name].image_shape[0] == 1 else (side, side, 4)

    def read(split: str, start: int, stop: int) -> np.ndarray:
        resized = _resized(_packed(splits[split][0][start:stop]), side)
        return resized if len(form) == 2 else resized.view(np.uint8).reshape(-1, *form)

    classes = [str(label) for label in range(DATASETS[name].num_classes)]
    labels = {split: labels for split, (_, labels) in splits.items()}
    return Source(classes, labels, form, read, _identity(name, root, class_list), {})


def _identity(name: str, root: Path, class_list: str | None) -> str:
    """What stands for the content that is resized: of originals, whose checksums are known, their name."""
    content = name
    if DATASETS[name].is_prepared:
        content += prepared.content_of(name, root, class_list)
    return hashlib.sha256(content.encode()).hexdigest()


def _packed(images: np.ndarray) -> np.ndarray:
    """Images [n, H, W] grey or packed, or [n, 3, H, W], as uint8 or int32 [n, H, W]."""
    return pack(images).numpy() if images.ndim == 4 else images


def _resized(pixels: np.ndarray, side: int) -> np.ndarray:
    """Grey or packed pixels [n, H, W] as [n, side, side]."""
    # CMYK is what Pillow calls four channels that have nothing to do with each other.
    mode = "L" if pixels.dtype == np.uint8 else "CMYK"
    resized = np.empty((len(pixels), side, side), pixels.dtype)
    for target, image in zip(resized, pixels, strict=True):
        size = image.shape[1], image.shape[0]
        found = resize_shorter_edge(Image.frombytes(mode, size, np.ascontiguousarray(image).tobytes()), side)
        target[...] = np.frombuffer(found.tobytes(), pixels.dtype).reshape(side, side)
    return resized
