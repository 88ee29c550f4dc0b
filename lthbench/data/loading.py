"""From a DataSpec and a data folder to checked image sets."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lthbench.data.datasets import DATASETS, DataInfo, data_root
from lthbench.data.error import DataError
from lthbench.data.images import ImageSet, pack
from lthbench.data.reading import check_number, read_part, split_train
from lthbench.data.spec import DataSpec
from lthbench.data.strata import DIVISION, random_words, stratified_order

__all__ = ["DataError", "Splits", "data_root", "load", "split_train"]


class Splits(NamedTuple):
    """The images to train on, to make choices on, and to look at once, at the end."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


def load(spec: DataSpec, root: Path | None = None, device: torch.device | str = "cpu") -> Splits:
    """Read, verify and divide a data set; a second call in the same process returns the same tensors.

    Args:
        spec: which data set, and how its train split is divided.
        root: the data folder; None is the environment variable LTHBENCH_DATA. The embedded set needs none.
        device: of the images.

    Raises:
        DataError: a file is missing, partial or not the original; nothing of it is used.
    """
    return _load(spec, data_root(root), torch.device(device))


@lru_cache(maxsize=4)
def _load(spec: DataSpec, root: Path | None, device: torch.device) -> Splits:
    info = DATASETS[spec.name]

    def image_set(images: np.ndarray, labels: np.ndarray) -> ImageSet:
        # Prepared pixels are packed already, and mapped: a copy would load the whole file.
        pixels = torch.from_numpy(images) if info.is_prepared or spec.image_size else pack(images)
        # Where a batch is cut out of larger images, it still is.
        side = info.image_shape[1:] if spec.image_size is None else spec.info.image_shape[1:]
        return ImageSet(pixels, torch.from_numpy(labels), info.mean, info.std, side=side).to(device)

    def part(images: ImageSet, rows: np.ndarray) -> ImageSet:
        chosen = images.subset(torch.from_numpy(rows)) if len(rows) < len(images) else images
        return stand_in(chosen, spec.info) if spec.like else chosen

    images, labels = read_part(spec, root, "train")
    both, labels = of_classes(image_set(images, labels), labels, spec.classes)
    check_number(spec, "train", len(labels))
    train, validation = split_train(labels, spec)
    images, labels = read_part(spec, root, "test")
    test, labels = of_classes(image_set(images, labels), labels, spec.classes)
    check_number(spec, "test", len(labels))
    tested = np.sort(stratified_order(labels, random_words(len(labels), DIVISION))[: spec.num_test])
    return Splits(part(both, train), part(both, validation), part(test, tested))


def stand_in(images: ImageSet, info: DataInfo) -> ImageSet:
    """Grey images in the stored form of a data set with `info`: pixels and channels repeated.

    Pixels are copied and not interpolated, so they are the same on every machine.
    """
    pixels = images.pixels if images.rows is None else images.pixels[images.rows]
    side = (info.stored_side, info.stored_side) if info.stored_side else info.image_shape[1:]
    rows, columns = (
        torch.arange(new, device=pixels.device) * old // new for new, old in zip(side, pixels.shape[1:], strict=True)
    )
    pixels = pixels[:, rows[:, None], columns]
    if info.image_shape[0] > 1:
        pixels = pack(np.repeat(pixels.cpu().numpy()[:, None], info.image_shape[0], axis=1)).to(images.device)
    return replace(
        images, pixels=pixels, rows=None, mean=info.mean, std=info.std, side=(info.image_shape[1], info.image_shape[2])
    )


def of_classes(images: ImageSet, labels: np.ndarray, classes: tuple[int, ...] | None) -> tuple[ImageSet, np.ndarray]:
    """The images of some classes (None: all), and their labels int64 [N], renumbered in the order of `classes`."""
    if classes is None:
        return images, labels
    rows = np.flatnonzero(np.isin(labels, classes))
    labels = np.searchsorted(np.array(classes), labels[rows])
    subset = images.subset(torch.from_numpy(rows))
    return replace(subset, labels=torch.from_numpy(labels).to(images.device)), labels
