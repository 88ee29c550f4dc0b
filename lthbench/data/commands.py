"""What `lthbench data list`, `check` and `download` do, as plain data for the command line to print."""

from __future__ import annotations

import http.client
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lthbench.data.datasets import data_root
from lthbench.data.error import DataError
from lthbench.data.image_folder import class_list_id, read_class_list
from lthbench.data.own_preparation import add_own
from lthbench.data.own_sets import PROBLEMS, know_own_sets
from lthbench.data.own_sources import Wanted, source_of
from lthbench.data.prepare import MANIFEST, folder_of, prepare
from lthbench.data.prepared import skipped_in
from lthbench.data.reading import read_split
from lthbench.data.sheets import FOLDER
from lthbench.data.spec import DATASETS, DataInfo
from lthbench.names import unknown

# Errors of a download that ends too early, is something else, or is a broken archive.
_BROKEN = (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class DataStatus:
    """One data set as it stands on this machine.

    Attributes:
        present: its folder exists, prepared if it must be (`list`); or its content is correct (`check`).
        path: where it is or would be; None if no data folder is given.
        images: "train + test" counts, image shape, number of classes.
        problem: what is wrong and its cure; None if nothing is.
        skipped: files that its preparation skipped, which belong to no data set (lthbench.data.folder).
    """

    name: str
    present: bool
    path: str | None
    images: str
    licence: str
    origin: str
    problem: str | None = None
    skipped: dict[str, int] = field(default_factory=dict)


def list_data(root: Path | None) -> list[DataStatus]:
    """Return every known data set; only the existence of its folder is checked."""
    root = data_root(root)
    know_own_sets(root)
    known = [_status(name, info, root) for name, info in DATASETS.items()]
    broken = [
        DataStatus(name, present=False, path=str(folder_of(name, root)), images="", licence="your own", origin="",
                   problem=problem)
        for name, problem in PROBLEMS.items() if root is not None
    ]  # fmt: skip
    return known + broken


def check_data(root: Path | None, names: Iterable[str] | None = None) -> list[DataStatus]:
    """Read the named data sets in full and verify counts, shapes, labels and checksums.

    Without names, all whose folder exists.

    Raises:
        DataError: a name is unknown.
    """
    root = data_root(root)
    listed = {status.name: status for status in list_data(root)}
    chosen = (
        list(names)
        if names is not None
        else [name for name, status in listed.items() if status.present or name in PROBLEMS]
    )
    return [listed[name] if name in PROBLEMS else _checked(listed[_known(name)], root) for name in chosen]


def download_data(name: str, root: Path | None) -> DataStatus:
    """Fetch a data set with torchvision, then check it; existing files are not fetched again.

    Raises:
        DataError: the name is unknown, there is no data folder, or nothing can be fetched for this name.
    """
    info = DATASETS[_known(name)]
    root = data_root(root)
    if info.kind != "sheets":
        if info.download is None:
            raise DataError(f"{name}: there is nothing to download ({info.origin})")
        if root is None:
            raise DataError(f"{name}: no data folder is given; use --data DIR or set LTHBENCH_DATA")
        from torchvision import datasets

        # train=True fetches the files of both splits. Its reading of them is not used: `check` reads safely.
        fetch = getattr(datasets, info.download)
        root.mkdir(parents=True, exist_ok=True)
        before = _files(info, root)
        try:
            fetch(str(root), train=True, download=True)
        except _BROKEN as error:
            for path in _files(info, root) - before:  # cut off, perhaps
                path.unlink(missing_ok=True)
            fault = str(error).strip() or type(error).__name__
            raise DataError(
                f"{name}: torchvision could not download it to {root} ({fault.splitlines()[0]}); try again"
            ) from error
    return _checked(_status(name, info, root), root)


def _files(info: DataInfo, root: Path) -> set[Path]:
    """The files that a download may make: archives in the root, and what lies in the data set's own folder."""
    own = root / Path(info.folder).parts[0]
    return {path for path in (*root.glob("*"), *own.rglob("*")) if path.is_file()}


def prepare_data(
    name: str,
    root: Path | None,
    *,
    class_list: Path | None = None,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DataStatus:
    """Decode and resize a folder of images into arrays (see lthbench.data.prepare), then check them.

    Raises:
        DataError: the name is unknown or needs no preparation, there is no data folder, or images are missing,
            partial or corrupt.
    """
    info = DATASETS[_known(name)]
    root = data_root(root)
    if root is None:
        raise DataError(f"{name}: no data folder is given; use --data DIR or set LTHBENCH_DATA")
    folder = prepare(name, root, class_list=class_list, workers=workers, on_progress=on_progress)
    if class_list is None:
        return _checked(_status(name, info, root), root)
    chosen = class_list_id(read_class_list(class_list, info.num_classes))
    images, _ = read_split(name, root, "train", chosen, full=True)
    there = {"present": True, "path": str(folder), "skipped": skipped_in(folder)}
    status = DataStatus(**{**vars(_status(name, info, root)), **there})
    return DataStatus(**{**vars(status), "images": f"{len(images):,} train images of class_list {chosen}"})


def add_data(
    name: str,
    root: Path | None,
    wanted: Wanted,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DataStatus:
    """Prepare an own data set, so that suites can name it, then check it.

    Raises:
        DataError: the name is another's or none, there is no data folder, or images or labels cannot be used.
    """
    root = data_root(root)
    if root is None:
        raise DataError(f"{name}: no data folder is given; use --data DIR or set LTHBENCH_DATA")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name) or name.endswith((".partial", ".lease")):
        raise DataError(f"{name}: is no name; use letters, digits and . _ + -, the first a letter or digit")
    know_own_sets(root)
    if name in DATASETS and DATASETS[name].kind != "own":
        raise DataError(f"{name}: ships with lthbench; choose another name")
    add_own(name, root, source_of(name, wanted, root), workers=workers, on_progress=on_progress)
    know_own_sets(root)
    return _checked(_status(_known(name), DATASETS[name], root), root)


def _known(name: str) -> str:
    if name not in DATASETS:
        raise DataError(unknown("data set", name, DATASETS))
    return name


def _status(name: str, info: DataInfo, root: Path | None) -> DataStatus:
    if info.kind == "sheets":
        path: Path | None = FOLDER
    else:
        path = root / info.folder if root is not None else None
    present = path is not None and path.is_dir()
    problem, skipped = None, {}
    if info.kind == "own" and root is not None:
        present, skipped = path is not None and (path / MANIFEST).is_file(), skipped_in(root / info.folder)
    if info.kind == "tree" and root is not None:
        source_is_there, path = present, folder_of(name, root)
        present = (path / MANIFEST).is_file()
        skipped = skipped_in(path) if present else {}
        if source_is_there and not present:
            problem = f"{root / info.folder} is not prepared; run `lthbench data prepare {name} --data DIR`"
    shape = " x ".join(map(str, info.image_shape))
    return DataStatus(
        name,
        present=present,
        path=str(path) if path is not None else None,
        images=f"{info.num_train:,} + {info.num_test:,} of {shape}, {info.num_classes} classes",
        licence=info.licence,
        origin=info.origin,
        problem=problem,
        skipped=skipped,
    )


def _checked(status: DataStatus, root: Path | None) -> DataStatus:
    """Return `status` with the result of reading everything."""
    info = DATASETS[status.name]
    problem = None
    try:
        for split, count in (("train", info.num_train), ("test", info.num_test)):
            images, labels = read_split(status.name, root, split, full=True)
            shape = (count, *info.image_shape) if info.image_shape[0] > 1 else (count, *info.image_shape[1:])
            if info.is_prepared:
                side = (info.stored_side, info.stored_side) if info.stored_side else info.image_shape[1:]
                shape = (count, *side)
            present = np.unique(labels)
            if images.shape != shape or len(labels) != count:
                problem = f"{status.name}: {split} holds {images.shape} and {len(labels)} labels, expected {shape}"
            elif not np.array_equal(present, np.arange(info.num_classes)) and (info.kind != "own" or split == "train"):
                problem = f"{status.name}: {split} labels are {present}, expected 0 to {info.num_classes - 1}"
    except DataError as error:
        problem = str(error)
    return DataStatus(**{**vars(status), "present": problem is None, "problem": problem})
