"""`Lease`: the right to work on a task, held by one process at a time on a file system that many machines share.

A lease is a file that only its creator holds (O_EXCL, which NFS keeps too; no lock that a file system may not know).
Its holder touches it every few seconds. Who waits watches it: a file that stays untouched for `patience` seconds of
the waiter's own clock belongs to nobody any more, whatever the clocks of the machines say. On the holder's own
machine its death is seen at once.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

BEAT = 15.0
_LONGEST_LOOK = 15.0  # seconds between two looks of who waits for a lease
_LARGEST = 4096  # bytes of a lease's file that are read
PATIENCE = 90.0  # a beat may be late by the attribute cache of a network file system, which is 60 s at most


class LeaseLostError(Exception):
    """Another process took the lease, because this one did not touch it for too long (it was suspended, say)."""


class Who(BaseModel):
    """Who holds a lease; unknown where the holder died before it had written this.

    Attributes:
        owner: a random identifier.
        machine: its name with its boot id and, in containers, the PID namespace.
        started: when the process started, independent of changes to the clock.
        job: of Slurm, or empty.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    owner: str = ""
    machine: str = ""
    pid: int = 0
    started: str = ""
    job: str = ""


class Holder(NamedTuple):
    """Who holds a lease, and when it was touched (nanoseconds by the file system's clock)."""

    who: Who
    touched: int


def holder_of(path: Path) -> Holder | None:
    """The holder of a file's lease; None if it is free.

    The file is opened, and not just looked at, since that is when NFS asks its server.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            touched = os.fstat(file.fileno()).st_mtime_ns
            content = file.read(_LARGEST)
    except FileNotFoundError:
        return None
    try:
        return Holder(Who.model_validate_json(content), touched)
    except ValidationError:
        return Holder(Who(), touched)


def is_left(holder: Holder, silent: float) -> bool:
    """Whether a holder is dead: it was a process of this machine, or its lease was not touched for `silent` seconds.

    The latter compares the clocks of two machines; it is for callers that look once, with a `silent` above any clock
    skew.
    """
    return _died_here(holder.who) or time.time() - holder.touched / 1e9 > silent


class Lease:
    """A lease on what a file represents; a context manager that waits until it is free.

    Args:
        waits: called each time the lease was found to be held by another process.
    """

    def __init__(
        self,
        path: Path,
        *,
        beat: float = BEAT,
        patience: float = PATIENCE,
        waits: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.beat, self.patience, self._waits = path, beat, patience, waits
        self.owner = uuid.uuid4().hex
        self.lost = False
        self._watched: dict[Path, tuple[Holder | None, float, float]] = {}
        self._released = threading.Event()

    def __enter__(self) -> Lease:
        pause = 0.05
        while not self.try_acquire():
            self._waits()
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def try_acquire(self) -> bool:
        """Take the lease if it is free or its holder is dead; repeated calls are what notices a death."""
        if not self._create(self.path):
            holder = holder_of(self.path)
            if holder is None or not (_died_here(holder.who) or self._untouched(self.path, holder)):
                return False
            self._take_over(holder)
        # This process may have been suspended on its way here, so the file's present content decides.
        if not self._is_own():
            return False
        self._hold()
        return True

    def free(self, silent: float) -> None:
        """Delete the lease that a dead holder left (`is_left`); whoever else takes it meanwhile keeps it."""
        holder = holder_of(self.path)
        if holder is not None and is_left(holder, silent):
            self._take_over(holder)
            self.release()

    def check(self) -> None:
        """Raise LeaseLostError where another process holds the lease by now."""
        self.lost = self.lost or not self._is_own()
        if self.lost:
            raise LeaseLostError(f"{self.path}: another process took over; was this one suspended?")

    def release(self) -> None:
        self._released.set()
        if self._is_own():
            self.path.unlink(missing_ok=True)

    def _is_own(self) -> bool:
        holder = holder_of(self.path)
        return holder is not None and holder.who.owner == self.owner

    def _create(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, _this_process(self.owner).model_dump_json().encode())
        except OSError:
            path.unlink(missing_ok=True)  # a full disk has room for the name, but not for what is in it
            raise
        finally:
            os.close(descriptor)
        return True

    def _take_over(self, dead: Holder) -> None:
        """Replace a dead holder's lease by this one; of several processes that try, one succeeds."""
        gate = self.path.with_name(f"{self.path.name}.{re.sub(r'[^0-9a-f]', '', dead.who.owner)[:32] or 'unknown'}")
        if not self._create(gate):
            holder = holder_of(gate)
            if holder is not None and (_died_here(holder.who) or self._untouched(gate, holder)):
                gate.unlink(missing_ok=True)  # who had the gate died in it
        elif holder_of(self.path) != dead:  # another was faster, or the holder is awake again
            gate.unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):  # someone took this process for dead
                gate.replace(self.path)

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

    def _untouched(self, path: Path, holder: Holder) -> bool:
        """Whether the file has not changed for `patience` seconds of this process's own clock."""
        now = time.monotonic()
        before, since, last = self._watched.get(path, (None, now, now))
        # A process that has not looked for long was suspended, perhaps together with the holder: start watching again.
        if before != holder or now - last > _LONGEST_LOOK:
            since = now
        self._watched[path] = holder, since, now
        return now - since > self.patience


@functools.cache
def _machine() -> str:
    """What distinguishes machines, their boots, and containers whose process numbers are their own."""
    boot, space = "", ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()} {boot} {space}"


def _this_process(owner: str) -> Who:
    pid = os.getpid()
    return Who(
        owner=owner,
        machine=_machine(),
        pid=pid,
        started=_start_of(psutil.Process(pid)),
        job=os.environ.get("SLURM_JOB_ID", ""),
    )


def _start_of(process: psutil.Process) -> str:
    """When a process of this machine started: on Linux in ticks since boot, which no clock change affects."""
    with contextlib.suppress(OSError):
        # The name, in brackets, may hold anything; the 22nd field is the 20th after it.
        return Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()[19].decode()
    return str(process.create_time())


def _died_here(who: Who) -> bool:
    """Whether the holder was a process of this machine that has ended."""
    if who.machine != _machine():
        return False
    try:
        if who.pid > 0:
            os.kill(who.pid, 0)  # where /proc shows no processes of other users, they are there all the same
        process = psutil.Process(who.pid)
        return process.status() == psutil.STATUS_ZOMBIE or _start_of(process) != who.started
    except PermissionError:
        return False
    except (ProcessLookupError, psutil.NoSuchProcess, ValueError, OverflowError):
        return True
