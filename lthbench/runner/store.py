"""`Store`: one folder a task, named by its key; a task is done when its result is there, and stays done."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lthbench.tasks.atomic import write_atomically, write_json
from lthbench.tasks.layout import FAILURE, RESULT, weights_file

LAYOUT = "1"
MARKER = "lthbench-store"
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or move the store and give its new place by --store",
    errno.EDQUOT: "your quota of this disk is used up; free some space, or move the store and give it by --store",
    errno.EROFS: "the disk is read-only here; mount it for writing, or give another --store",
    errno.EACCES: "may not be written by you; change its permissions, or give another --store",
    errno.EPERM: "may not be written by you; change its permissions, or give another --store",
}


class StoreError(Exception):
    """A store that cannot be used; the message names the folder and the cure."""


class Store:
    """Where results live: ROOT/tasks/KK/KEY/{task.json, result.json, weights*.safetensors, mask.safetensors}."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        return self.root / "tasks" / key[:2] / key

    def is_done(self, key: str, keep: Iterable[int] = (), files: frozenset[str] | None = None) -> bool:
        """Whether the result is there, with the weights of all steps that are to be kept.

        A training that diverged, or was refused, is done without them.

        Args:
            files: the names of the files in the task's folder, where they are known.
        """
        folder = self.folder(key)
        if files is None:
            there = lambda name: (folder / name).exists()  # noqa: E731
        else:
            there = files.__contains__
        if not there(RESULT):
            return False
        if all(there(weights_file(step)) for step in keep):
            return True
        result = self.result(key)
        return result is not None and result["status"] != "ok"

    def files(self, keys: Iterable[str]) -> dict[str, frozenset[str]]:
        """Key -> the names in its folder, for those keys that have one; each folder is listed once."""
        by_prefix: dict[str, list[str]] = {}
        for key in keys:
            by_prefix.setdefault(key[:2], []).append(key)
        try:
            return dict(_listed(self.root / "tasks", by_prefix))
        except OSError as error:
            raise unusable(self.root, error) from error

    def missing(self, wanted: Mapping[str, Iterable[int]]) -> list[str]:
        """Of key -> the steps to be kept, the keys that are not done, in order."""
        files = self.files(wanted)
        return [key for key, keep in wanted.items() if key not in files or not self.is_done(key, keep, files[key])]

    def result(self, key: str) -> dict[str, Any] | None:
        """The result of a task, or None where it is not done.

        Raises:
            StoreError: the file is no result, or cannot be read.
        """
        path = self.folder(key) / RESULT
        try:
            result: dict[str, Any] = json.loads(path.read_text())
            if not isinstance(result.get("metrics"), dict) or "status" not in result:
                raise ValueError("status or metrics missing")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(self.root, error) from error
        except ValueError as error:
            raise StoreError(f"{path}: is no result ({error}); delete the folder to run the task again") from error
        return result

    def failure(self, key: str) -> str | None:
        """Why the last attempt at a task failed, or None."""
        try:
            return str(json.loads((self.folder(key) / FAILURE).read_text())["error"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def failures(self, keys: Iterable[str]) -> dict[str, str]:
        """Of some keys, those whose last attempt failed, and why."""
        files = self.files(keys)
        return {key: self.failure(key) or "" for key in files if FAILURE in files[key]}

    def note_failure(self, key: str, error: str) -> None:
        """Write down why a task failed."""
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FAILURE, {"error": error})

    def forget_failure(self, key: str) -> None:
        """Let a failed task be tried again."""
        (self.folder(key) / FAILURE).unlink(missing_ok=True)

    def check(self) -> None:
        """Make the store usable: create the folder, or say why it cannot be used.

        Raises:
            StoreError: it cannot be written, or another layout is in it.
        """
        marker = self.root / MARKER
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                # What a process left that was killed before it could rename the marker is no other's property.
                foreign = any(not p.name.startswith(f".{MARKER}.") for p in self.root.iterdir())
                if foreign and not marker.exists():  # another process may have made it meanwhile
                    raise StoreError(f"{self.root}: is not empty and no store; give an empty or new folder by --store")
                write_atomically(marker, f"{LAYOUT}\n".encode())
            if marker.read_text().strip() != LAYOUT:
                raise StoreError(f"{self.root}: has another layout than this program's; give another --store")
        except OSError as error:
            raise unusable(self.root, error) from error


def unusable(path: Path, error: OSError) -> StoreError:
    """What to tell of a path of the store that the system refuses."""
    reason = _REASONS.get(error.errno or 0)
    if reason is None:
        return StoreError(f"{path}: cannot be used as store: {error.strerror}; give another --store")
    return StoreError(f"{path}: {reason}. Nothing that is finished is lost: the same command goes on from there")


def is_about_the_disk(error: OSError) -> bool:
    """Whether an error is no fault of the task at hand, but would befall any task of the store."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _listed(tasks: Path, by_prefix: Mapping[str, list[str]]) -> Iterator[tuple[str, frozenset[str]]]:
    for prefix, keys in by_prefix.items():
        try:
            there = _names(tasks / prefix)
        except FileNotFoundError:
            continue
        for key in keys:
            if key in there:
                yield key, _names(tasks / prefix / key)


def _names(folder: Path) -> frozenset[str]:
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries)
