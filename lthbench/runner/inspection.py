"""Inspection of a store: every file of every task is read in full, several at once."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from lthbench.lease import Lease, holder_of, is_left
from lthbench.tasks.paths import CHECKPOINT, DAMAGED, LEASE, RESULT, SCRATCH
from lthbench.tasks.store import Fault, Store, StoreError, unusable

_KEY = re.compile(r"[0-9a-f]{32}")
# No process still works on a file that it should have renamed so long ago, or holds a lease untouched for so long.
_ABANDONED = 86400.0


@dataclass
class Inspection:
    """The outcome of inspecting a store.

    Attributes:
        tasks: how many have a result.
        faults: key -> what is wrong with the task.
        outdated: tasks that read files which have been recomputed since, with other bits.
        set_aside: files that were found damaged before.
        abandoned: what killed processes left: files half written or of no use any more, their folders, and leases.
    """

    tasks: int = 0
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    outdated: list[str] = field(default_factory=list)
    set_aside: list[Path] = field(default_factory=list)
    abandoned: list[Path] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not (self.faults or self.outdated)


def keys_of(store: Store) -> list[str]:
    """The keys of all tasks that have a folder in a store."""
    try:
        return sorted(p.name for p in (store.root / "tasks").glob("??/*") if _KEY.fullmatch(p.name) and p.is_dir())
    except OSError as error:
        raise unusable(store.root, error) from error


def inspect_store(
    store: Store,
    keys: Collection[str] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Read all files that tasks have written and compare them with their digests.

    Args:
        keys: of the tasks; None is all.
        on_progress: called with (done, total) tasks.
    """
    found = Inspection()
    wanted = keys_of(store) if keys is None else list(keys)
    # The digests are taken without Python's lock, so that threads are enough.
    with ThreadPoolExecutor(2 * len(os.sched_getaffinity(0))) as pool:
        for done, (key, faults) in enumerate(zip(wanted, pool.map(store.inspect, wanted), strict=True), 1):
            if faults:
                found.faults[key] = faults
            on_progress(done, len(wanted))
    sound = dict.fromkeys(key for key in wanted if key not in found.faults)
    found.tasks = sum(_has_result(store, key) for key in wanted)
    found.outdated = [key for key in sound if _has_result(store, key) and not _is_up_to_date(store, key)]
    for folder in map(store.folder, wanted):
        found.set_aside += sorted(folder.glob(f"*{DAMAGED}"))
    if keys is None:
        found.abandoned = sorted(_abandoned(store.root))
    return found


def repair(store: Store, found: Inspection, tell: Callable[[str], None]) -> None:
    """Set aside what is damaged, withdraw what is outdated, and delete what was abandoned: `run` does the rest."""
    for key in found.faults:
        store.set_aside(key, tell)
    for key in found.outdated:
        tell(f"{store.folder(key)}: one of its inputs has changed since; it is to be run again")
        store.withdraw(key)
    for path in reversed(found.abandoned):  # what is in a folder before it, and who died taking a lease before that
        tell(f"{path}: left by a process that has ended; deleted")
        if _is_lease(path):
            Lease(path).free(_ABANDONED)
        elif path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def _has_result(store: Store, key: str) -> bool:
    return (store.folder(key) / RESULT).exists()


def _is_up_to_date(store: Store, key: str) -> bool:
    try:
        return store.is_done(key)
    except StoreError:  # a result that it read is damaged, which is reported for that task
        return True


def _abandoned(root: Path) -> Iterator[Path]:
    """Files that a process was killed before it could rename or delete."""
    for path in root.rglob("*"):
        if _is_lease(path):
            holder = holder_of(path)
            if holder is not None and is_left(holder, _ABANDONED):
                yield path
        elif (
            (path.name.startswith(".") and path.suffix == ".tmp")
            or path.parent.name.startswith(SCRATCH)
            or (path.name.startswith(SCRATCH) and not _is_holders(path))
            or (path.name == CHECKPOINT and (path.parent / RESULT).exists())
        ) and _is_old(path):
            yield path


def _is_lease(path: Path) -> bool:
    """Whether a file is a lease, or one on the taking of a dead holder's lease."""
    return path.name.partition(".")[0] == LEASE and path.is_file()


def _is_holders(scratch: Path) -> bool:
    """Whether a scratch folder belongs to the holder of the task."""
    holder = holder_of(scratch.parent / LEASE)
    return holder is not None and scratch.name == f"{SCRATCH}{holder.who.owner}"


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED
    except FileNotFoundError:  # renamed or deleted since its folder was listed
        return False
