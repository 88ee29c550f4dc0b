"""Detection of workers that hang: that show no progress for many times their longest pause between two signs of it.

A sign is a step of a training or a batch of an evaluation, made by the work itself and not by a thread that survives
while the task hangs. Time is the watcher's own, by a clock that stops while the watcher is suspended, so that resuming
a run that was stopped as a whole raises no alarm.
"""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from types import TracebackType
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lthbench.documents import DocumentError, read_document
from lthbench.lease import Holder
from lthbench.tasks.atomic import write_json
from lthbench.tasks.paths import STALLED
from lthbench.tasks.store import Store

# A worker is reported after so many times its longest pause, but not before so many seconds: disks can be slow.
MULTIPLE, LEAST = 20.0, 60.0
# A compiled training compiles once more where a batch of another size comes, at the end of its first epoch.
LEAST_COMPILED = 600.0
# Until two steps are done nothing is known of the pace: data are read and verified, kernels chosen, models compiled.
BEGINNING = 3600.0
LOOK = 1.0


class Stall(BaseModel):
    """The record of a hanging worker in its task's folder, for processes that see only the store.

    Attributes:
        since: when it was reported, ISO 8601.
        seconds: without progress so far.
        process, machine, job: whose; `job` is Slurm's, or empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    since: str
    seconds: Annotated[float, Field(ge=0)]
    process: int
    machine: str
    job: str

    def __str__(self) -> str:
        where = f"process {self.process} on {self.machine}" + (f", job {self.job}" if self.job else "")
        return f"no progress in {self.seconds:.0f} s at {self.since}, {where}"


def stalled_twice(seconds: float) -> str:
    """The failure of a task at which a second process had to be ended."""
    return f"no progress in {seconds:.0f} s, for the second time; a larger --stall-timeout waits for longer"


def stall_of(store: Store, key: str, holder: Holder | None) -> Stall | None:
    """The record of the hanging worker that holds a task, or None; records of earlier holders are ignored."""
    try:
        found = read_document(store.folder(key) / STALLED, Stall)
    except (OSError, DocumentError):
        return None
    return found if holder is not None and holder.who.pid == found.process else None


class OwnTime:
    """A clock of this process that stops while the process is suspended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: float = 10 * LOOK) -> None:
        self._clock, self._most = clock, most
        self._last, self._time = clock(), 0.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            now = self._clock()
            self._time += min(now - self._last, self._most)
            self._last = now
            return self._time


class _Watched:
    """A worker at a task: its last sign, its longest pause between two, and whether it has been reported."""

    def __init__(self, key: str, process: int, now: float) -> None:
        self.key, self.process = key, process
        self.last = now
        self.longest: float | None = None
        self.num_signs = 0
        self.is_told = False


class Stalls:
    """Watches workers, each at a task of its own.

    Args:
        tell: called with the worker's number, its task and a sentence if it hangs, or None once it continues.
        timeout: seconds without progress after which a worker is to be ended; 0 never ends one.
        least: seconds before which no worker is reported.
    """

    def __init__(
        self,
        store: Store,
        tell: Callable[[int, str, str | None], None],
        timeout: float,
        *,
        least: float | None = None,
        time: Callable[[], float] | None = None,
    ) -> None:
        self.store, self.tell, self.timeout = store, tell, timeout
        self.least = LEAST if least is None else least
        self._time = time or OwnTime()
        self._watched: dict[int, _Watched] = {}
        self._notes = _Aside()

    def begin(self, worker: int, key: str, process: int) -> None:
        """Watch a worker that begins a task, or that has waited for another at the same one."""
        self.end(worker)
        self._watched[worker] = _Watched(key, process, self._time())

    def sign(self, worker: int) -> None:
        """Record that a worker has made progress."""
        watched, now = self._watched[worker], self._time()
        if watched.num_signs:
            watched.longest = max(watched.longest or 0.0, now - watched.last)
        watched.num_signs += 1
        watched.last = now
        if watched.is_told:
            watched.is_told = False
            self.tell(worker, watched.key, None)
            self._clear(watched.key)

    def end(self, worker: int) -> None:
        """Watch a worker no more: its task has ended, or it has."""
        watched = self._watched.pop(worker, None)
        if watched and watched.is_told:
            self._clear(watched.key)

    def look(self) -> dict[int, float]:
        """Report workers that hang; return those to be ended, with their seconds without progress."""
        now, to_end = self._time(), {}
        for worker, watched in list(self._watched.items()):
            seconds, limit = now - watched.last, self._limit(watched)
            if seconds <= limit:
                continue
            if not watched.is_told:
                watched.is_told = True
                self.tell(worker, watched.key, self._sentence(watched, seconds))
                self._note(watched, seconds)
            if self.timeout and seconds > max(self.timeout, limit):
                to_end[worker] = seconds
        return to_end

    def _limit(self, watched: _Watched) -> float:
        return BEGINNING if watched.longest is None else max(self.least, MULTIPLE * watched.longest)

    def _sentence(self, watched: _Watched, seconds: float) -> str:
        pace = "" if watched.longest is None else f", its steps took at most {watched.longest:.1f} s"
        then = f"; it is ended after {self.timeout:g} s (--stall-timeout)" if self.timeout else ""
        return f"no progress in {seconds:.0f} s{pace} (process {watched.process}){then}"

    def _note(self, watched: _Watched, seconds: float) -> None:
        stall = Stall(
            since=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(seconds, 1),
            process=watched.process,
            machine=platform.node(),
            job=os.environ.get("SLURM_JOB_ID", ""),
        )
        path = self.store.folder(watched.key) / STALLED
        self._notes.do(lambda: write_json(path, stall.model_dump()))

    def _clear(self, key: str) -> None:
        path = self.store.folder(key) / STALLED
        self._notes.do(lambda: path.unlink(missing_ok=True))


class _Aside:
    """Writes in a thread, in order: if the disk is what hangs, the reporter must not hang too."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def do(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                self._jobs.get()()


class Watchdog:
    """A thread that watches while this process runs tasks itself; it needs no cooperation of a call that hangs.

    Args:
        end: called in that thread with the task and its seconds without progress, where this process is to be ended.
    """

    def __init__(self, stalls: Stalls, end: Callable[[str, float], None]) -> None:
        self.stalls, self._end = stalls, end
        self._key = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def begin(self, key: str) -> None:
        """Watch a task, from its beginning."""
        self._key = key
        self.again()

    def again(self) -> None:
        """Watch the task from here on: until now it has waited for another process."""
        self.stalls.begin(0, self._key, os.getpid())

    def _look_on(self) -> None:
        while not self._over.wait(LOOK):
            for seconds in self.stalls.look().values():
                self._end(self._key, seconds)
