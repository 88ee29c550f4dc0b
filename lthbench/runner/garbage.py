"""Removing from a store what no suite needs, task by task: whenever it is killed, a task is there whole or gone."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lthbench.lease import Lease
from lthbench.runner.inspection import keys_of
from lthbench.tasks.paths import CHECKPOINT, LEASE, MASK, RESULT, weights_file
from lthbench.tasks.store import Store, unusable

TRASH = "trash"


@dataclass
class Garbage:
    """What of a store no suite needs.

    Attributes:
        sizes: key -> bytes of its folder.
        kinds: how many trainings, masks and others (lines, and what never ended).
        num_kept, bytes_kept: tasks that are needed, and what they take.
        left_over: bytes of what an earlier removal was killed at.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    num_kept: int = 0
    bytes_kept: int = 0
    left_over: int = 0

    @property
    def total(self) -> int:
        """Bytes that removing it gives back."""
        return sum(self.sizes.values()) + self.left_over


def find_garbage(store: Store, needed: Callable[[], Collection[str]]) -> Garbage:
    """The tasks of a store that are not needed.

    Args:
        needed: the keys of all tasks that suites plan. It is called when the tasks of the store have been listed, so
            that what a run begins meanwhile is not among them.
    """
    keys = keys_of(store)
    wanted = set(needed())
    found = Garbage()
    try:
        for key in keys:
            size = _size(store.folder(key))
            if key in wanted:
                found.num_kept += 1
                found.bytes_kept += size
            else:
                found.sizes[key] = size
                found.kinds[_kind(store.folder(key))] += 1
        found.left_over = _size(store.root / TRASH)
    except OSError as error:
        raise unusable(store.root, error) from error
    return found


def remove(store: Store, keys: Iterable[str], on_progress: Callable[[int], None] = lambda done: None) -> list[str]:
    """Remove tasks; each is renamed into the store's `trash` and deleted there.

    Args:
        on_progress: called with how many are done.

    Returns:
        The keys that a process holds, which stay.
    """
    held, trash = [], store.root / TRASH
    try:
        for done, key in enumerate(keys, 1):
            if store.folder(key).exists() and not _remove(store.folder(key), trash):
                held.append(key)
            on_progress(done)
    except OSError as error:
        raise unusable(store.root, error) from error
    shutil.rmtree(trash, ignore_errors=True)
    return held


def _remove(folder: Path, trash: Path) -> bool:
    """Move a task's folder away and delete it there; False if a process holds the task, which is then left alone."""
    lease = Lease(folder / LEASE)
    if not lease.try_acquire():
        return False
    try:
        trash.mkdir(exist_ok=True)
        gone = trash / f"{folder.name}-{lease.owner}"
        folder.rename(gone)
    finally:
        lease.release()
    shutil.rmtree(gone, ignore_errors=True)
    return True


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except FileNotFoundError:  # by whoever works there
            continue
    return total


def _kind(folder: Path) -> str:
    names = {path.name for path in folder.iterdir()}
    if RESULT not in names:
        return "unfinished"
    return "masks" if MASK in names else "trainings" if names & {weights_file(None), CHECKPOINT} else "lines"
