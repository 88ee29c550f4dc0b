"""Which files are in which tasks' folders, found with one listing of each folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

Sizes = Mapping[str, int]
"""Name of a file in a task's folder -> its bytes."""


def list_folders(tasks: Path, keys: Iterable[str]) -> Iterator[tuple[str, Sizes]]:
    """Those of some keys that have a folder below `tasks`, with what is in it; each folder is listed once."""
    by_prefix: dict[str, list[str]] = {}
    for key in keys:
        by_prefix.setdefault(key[:2], []).append(key)
    for prefix, its in by_prefix.items():
        try:
            there = _names(tasks / prefix)
        except FileNotFoundError:
            continue
        for key in its:
            if key in there:
                yield key, _sizes(tasks / prefix / key)


def _names(folder: Path) -> frozenset[str]:
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries)


def _sizes(folder: Path) -> Sizes:
    found = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # it was renamed or removed since the folder was listed
                found[entry.name] = entry.stat().st_size
    return found
