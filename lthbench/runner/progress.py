"""Live progress of a run: a bar with the time left on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from lthbench.plain import visible
from lthbench.runner.pace import Pace, in_words
from lthbench.runner.queue import last_line
from lthbench.runner.watcher import Watcher
from lthbench.suite.plan import Plan

_EVERY = 1.0  # seconds between two estimates of the time left


class RunProgress(Watcher):
    """What all forms of progress know: how much of the missing work is done, parts included, and what is left.

    Args:
        pace: what tasks have taken so far, in earlier parts too.
        done: called with the key of each task that is done.
        number: of this part of the run: the second is what the results of the first have made known, and so on.
    """

    def __init__(
        self,
        plan: Plan,
        missing: list[str],
        console: Console,
        pace: Pace | None = None,
        done: Callable[[str], None] = lambda key: None,
        number: int = 1,
    ) -> None:
        self.plan, self.console, self.pace, self.tell_done = plan, console, pace or Pace(), done
        self.number = number
        self.left, self.done = dict.fromkeys(missing), dict[str, None]()
        self.parts: dict[str, float] = {}
        self.begun: dict[str, float] = {}
        self.workers: set[int] = set()
        self.reasons: set[str] = set()  # why tasks failed
        self.part, self.seconds_left = 0.0, None if pace is None else self._seconds_left()
        self._estimated = 0.0

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def started(self, key: str, worker: int) -> None:
        self.begun[key] = time.time()
        self.workers.add(worker)

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        self.parts[key] = done / max(total, 1)
        self._estimate()
        self.show(key)

    def finished(self, key: str, worker: int, status: str) -> None:
        self.parts.pop(key, None)
        now = time.time()
        self.pace.finished(self.plan, key, now - self.begun.pop(key, now), now)
        self.left.pop(key, None)
        self.done[key] = None
        if status != "ok":
            self.console.print(Text(status, "yellow"), f": {self.plan.label(key)} ({key})", sep="")
        self.tell_done(key)
        self._estimate()
        self.show(key)

    def failed(self, key: str, worker: int, error: str) -> None:
        self.parts.pop(key, None)
        if (reason := last_line(error)) not in self.reasons:  # one fault of the data may fail a hundred tasks
            self.reasons.add(reason)
            self.console.print(Text("failed", "red"), f": {self.plan.label(key)} ({key}): {reason}", sep="")

    def put_back(self, key: str, worker: int, lost: str) -> None:
        self.parts.pop(key, None)
        self.done.pop(lost, None)
        self.left[lost] = None
        self.show(key)

    def stalled(self, key: str, worker: int, what: str | None) -> None:
        state, why = ("goes on", "") if what is None else ("stalled", f": {what}")
        self.console.print(Text(state, "yellow"), f": {self.plan.label(key)} ({key}){why}", sep="")

    def told(self, text: str) -> None:
        self.console.print(text)

    def _estimate(self) -> None:
        """Estimate anew, now and then, how much of the work is done and how long the rest takes."""
        if (now := time.monotonic()) - self._estimated >= _EVERY or not self.left:
            self._estimated = now
            # What tasks take is known better as they are done, but what was shown as done stays so.
            self.part = max(self.part, self.pace.part(self.plan, self.done, self.left, self.parts))
            self.seconds_left = self._seconds_left()

    def _seconds_left(self) -> float | None:
        return self.pace.seconds_left(self.plan, self.left, self.parts, at_once=len(self.workers) or 1)

    @property
    def described(self) -> str:
        """How far this part of the run is, in words: `62 % of the work (300 of 476 tasks), about 2 minutes left`."""
        left = f", {in_words(self.seconds_left)} left" if self.seconds_left is not None and self.left else ""
        tasks = len(self.done) + len(self.left)
        what = "the work" if self.number == 1 else f"part {self.number}"
        return f"{100 * self.part:.0f} % of {what} ({len(self.done):,} of {tasks:,} tasks){left}"

    def show(self, key: str) -> None:
        """Show how far the run is, after news of a task."""


class LiveProgress(RunProgress):
    """A line and a bar for the whole run, and a line for every worker."""

    def __init__(
        self,
        plan: Plan,
        missing: list[str],
        console: Console,
        pace: Pace | None = None,
        done: Callable[[str], None] = lambda key: None,
        number: int = 1,
    ) -> None:
        super().__init__(plan, missing, console, pace, done, number)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, overflow="fold")),
            BarColumn(bar_width=16),
            TimeElapsedColumn(),
            console=console,
            expand=True,
        )
        self.all = self.progress.add_task("", total=1.0)
        self.lines: dict[int, TaskID] = {}
        self.show("")

    def __enter__(self) -> LiveProgress:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for line in self.lines.values():
            self.progress.remove_task(line)
        self.progress.stop()

    def started(self, key: str, worker: int) -> None:
        super().started(key, worker)
        if worker in self.lines:
            self.progress.remove_task(self.lines[worker])
        self.lines[worker] = self.progress.add_task("  " + visible(self.plan.label(key)), total=1)

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        self.progress.update(self.lines[worker], completed=done / max(total, 1))
        super().progressed(key, worker, done, total)

    def show(self, key: str) -> None:
        self.progress.update(self.all, completed=self.part, description=self.described)


class PlainProgress(RunProgress):
    """A line every few seconds, for logs."""

    every = 10.0

    def __enter__(self) -> PlainProgress:
        self.last = time.monotonic()
        return self

    def show(self, key: str) -> None:
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            self.console.print(f"{self.described}; now {self.plan.label(key)}")
