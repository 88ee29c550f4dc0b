"""The splits of a data set, read from its files and checked, as arrays (no torch needed)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from lthbench.data import cifar, idx, prepared, sheets
from lthbench.data.datasets import DATASETS, data_root
from lthbench.data.error import DataError
from lthbench.data.spec import DataSpec
from lthbench.data.strata import DIVISION, random_words, stratified_order


def require(spec: DataSpec, root: Path | None) -> None:
    """Read and verify a data set, of which nothing is kept; arguments and errors are those of `load`."""
    for split in ("train", "test"):
        _, labels = read_part(spec, data_root(root), split)
        check_number(spec, split, len(labels) if spec.classes is None else int(np.isin(labels, spec.classes).sum()))


def read_part(spec: DataSpec, root: Path | None, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """One split at the size that is asked for, of all classes; what it gives and raises is as for `read_split`."""
    if spec.image_size is None:
        return read_split(spec.name, root, split, spec.class_list)
    from lthbench.data.image_sizes import read_resized

    return read_resized(spec.name, root, split, spec.info.stored_side or spec.image_size, spec.class_list)


def check_number(spec: DataSpec, split: Literal["train", "test"], number: int) -> None:
    """Raise a DataError if a split has too few images, of the classes that are asked for."""
    if split == "train" and number < spec.validation + (spec.num_train or 1):
        raise DataError(
            f"{spec.title}: has {number:,} train images, too few for validation {spec.validation} "
            f"and num_train {spec.num_train}"
        )
    if split == "test" and number < (spec.num_test or 1):
        raise DataError(f"{spec.title}: has {number:,} test images, too few for num_test {spec.num_test}")


def read_split(
    name: str, root: Path | None, split: str, class_list: str | None = None, *, full: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Read and verify one split, "train" or "test".

    Args:
        class_list: as in `DataSpec`.
        full: verify every byte of a prepared data set, however large.

    Returns:
        uint8 images [N, H, W] or [N, 3, H, W], or of prepared ones the packed pixels int32 [N, S, S]; and labels
        int64 [N].

    Raises:
        DataError: as `load`.
    """
    info = DATASETS[name]
    if info.kind == "sheets":
        return sheets.read_split(split)
    if root is None:
        raise DataError(f"{name}: no data folder is given; point --data or LTHBENCH_DATA at the one with {info.folder}")
    if info.is_prepared:
        return prepared.read_split(name, root, split, class_list, full=full)
    readers = {"idx": idx.read_split, "cifar": cifar.read_split}
    return readers[info.kind](name, root, split)


def split_train(labels: np.ndarray, spec: DataSpec) -> tuple[np.ndarray, np.ndarray]:
    """Divide the train split, labels int64 [N], into indices (train, validation), ascending and disjoint.

    Validation is the first part of a fixed stratified order, and `num_train` the first part of the rest's.
    """
    words = random_words(len(labels), DIVISION)
    order = stratified_order(labels, words)
    validation, rest = order[: spec.validation], np.sort(order[spec.validation :])
    train = rest[stratified_order(labels[rest], words[rest])[: spec.num_train]]
    return np.sort(train), np.sort(validation)
