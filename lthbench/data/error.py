"""The error of this room: a data set that is missing, partial, corrupt or malicious."""

from __future__ import annotations

from pathlib import Path

from lthbench.data.spec import DATASETS
from lthbench.documents import on_one_line


class DataError(Exception):
    """A data set cannot be used; the message names the file or folder, what was expected, and the cure, on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(on_one_line(message))


def missing(name: str, path: Path, expected: str) -> DataError:
    """Return the error for a file or folder of data set `name` that is not there."""
    return DataError(f"{name}: {path} is missing, expected {expected}; {cure(name)}")


def damaged(name: str, path: Path, found: str, expected: str) -> DataError:
    """Return the error for a file of data set `name` with wrong content."""
    return DataError(f"{name}: {path} {found}, expected {expected}; delete it, then {cure(name)}")


def cure(name: str) -> str:
    """Return what a user can do to get data set `name`."""
    info = DATASETS.get(name)
    if info is None or info.kind == "own":
        return f"run `lthbench data add {name}` with its --folder, --arrays or --torchvision and --data"
    if info.kind == "tree":
        return f"get it ({info.origin}), then run `lthbench data prepare {name} --data DIR`"
    point = "point --data or LTHBENCH_DATA at the folder that holds it"
    if info.download:
        return f"run `lthbench data download {name} --data DIR` or {point}"
    return f"{point} ({info.origin})"
