"""`Lease`: the right to work on a task, held by one process at a time on a file system that many machines share.

A lease is a file that only its creator holds (O_EXCL, which NFS keeps too; no lock that a file system may not know).
Its holder touches it every few seconds. Who waits watches it: a file that stays untouched for `patience` seconds of
the waiter's own clock belongs to nobody any more, whatever the clocks of the machines say. On the holder's own
machine its death is seen at once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import psutil

BEAT = 15.0
PATIENCE = 90.0  # a beat may be late by the attribute cache of a network file system, which is 60 s at most


class LeaseLostError(Exception):
    """Another process took the lease, because this one did not touch it for too long (it was suspended, say)."""


class _Holder(NamedTuple):
    who: dict[str, Any]
    touched: int  # ns


class Lease:
    """A lease on what a file stands for; used with `with`, which waits until it is free."""

    def __init__(self, path: Path, *, beat: float = BEAT, patience: float = PATIENCE) -> None:
        self.path, self.beat, self.patience = path, beat, patience
        self.owner = uuid.uuid4().hex
        self.lost = False
        self._watched: dict[Path, tuple[object, float]] = {}
        self._released = threading.Event()

    def __enter__(self) -> Lease:
        pause = 0.05
        while not self.try_acquire():
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def try_acquire(self) -> bool:
        """Take the lease if it is free, or its holder is dead; asked again and again, this notices the death."""
        if self._create(self.path):
            self._hold()
            return True
        holder = self._read(self.path)
        if holder is None or not (_died_here(holder.who) or self._untouched(self.path, holder)):
            return False
        return self._take_over(holder)

    def check(self) -> None:
        """Raise LeaseLostError where the lease is another's by now."""
        holder = self._read(self.path)
        if holder is None or holder.who.get("owner") != self.owner:
            self.lost = True
        if self.lost:
            raise LeaseLostError(f"{self.path}: another process took over; was this one suspended?")

    def release(self) -> None:
        self._released.set()
        holder = self._read(self.path)
        if holder is not None and holder.who.get("owner") == self.owner:
            self.path.unlink(missing_ok=True)

    def _create(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, json.dumps({"owner": self.owner, **_this_process()}).encode())
        except OSError:
            path.unlink(missing_ok=True)  # a full disk has room for the name, but not for what is in it
            raise
        finally:
            os.close(descriptor)
        return True

    def _take_over(self, dead: _Holder) -> bool:
        """Put this lease in the place of a dead holder's; of several that try, one does it."""
        gate = self.path.with_name(f"{self.path.name}.{dead.who.get('owner', 'unknown')}")
        if not self._create(gate):
            holder = self._read(gate)
            if holder is not None and (_died_here(holder.who) or self._untouched(gate, holder)):
                gate.unlink(missing_ok=True)  # who had the gate died in it
            return False
        now = self._read(self.path)
        if now is None or now.who.get("owner") != dead.who.get("owner"):
            gate.unlink(missing_ok=True)
            return False
        try:
            gate.replace(self.path)
        except FileNotFoundError:  # someone took this process for dead
            return False
        self._hold()
        return True

    def _hold(self) -> None:
        self._released.clear()
        self.lost = False
        threading.Thread(target=self._beat, args=(self._released,), daemon=True).start()

    def _beat(self, released: threading.Event) -> None:
        while not released.wait(self.beat):
            # A file server that does not answer now may answer at the next beat.
            with contextlib.suppress(OSError, LeaseLostError):
                self.check()
                os.utime(self.path)

    def _untouched(self, path: Path, holder: _Holder) -> bool:
        """Whether the file has been as it is for as long as this process' patience lasts."""
        state = (holder.who.get("owner"), holder.touched)
        before, since = self._watched.get(path, (None, 0.0))
        if before != state:
            self._watched[path] = (state, time.monotonic())
            return False
        return time.monotonic() - since > self.patience

    @staticmethod
    def _read(path: Path) -> _Holder | None:
        """Who holds the lease, and when it was touched; None where nobody does.

        The file is opened, and not just looked at, since that is when NFS asks its server.
        """
        try:
            with path.open() as file:
                touched = os.fstat(file.fileno()).st_mtime_ns
                who = json.loads(file.read() or "{}")
        except FileNotFoundError:
            return None
        except ValueError:
            return _Holder({}, touched)
        return _Holder(who if isinstance(who, dict) else {}, touched)


@functools.cache
def _machine() -> str:
    """What distinguishes machines, their boots, and containers whose process numbers are their own."""
    boot, space = "", ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()} {boot} {space}"


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "machine": _machine(),
        "pid": process.pid,
        "started": process.create_time(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
    }


def _died_here(who: dict[str, Any]) -> bool:
    """Whether the holder was a process of this machine and is none any more."""
    if who.get("machine") != _machine():
        return False
    try:
        process = psutil.Process(int(who["pid"]))
        # A process' start is told relative to the clock, which may be set: a minute's difference is another process.
        return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - float(who["started"])) > 60
    except psutil.NoSuchProcess:
        return True
