"""Live progress of a run: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lthbench.plain import visible
from lthbench.runner.queue import last_line
from lthbench.runner.watcher import Watcher
from lthbench.suite.plan import Plan


class RunProgress(Watcher):
    """What all forms of progress know: how much of the missing work is done, in image passes, parts included."""

    def __init__(self, plan: Plan, missing: list[str], console: Console) -> None:
        self.plan, self.console = plan, console
        self.num_tasks, self.num_done = len(missing), 0
        self.cost = {key: plan.cost[key] for key in missing}
        self.total = sum(self.cost.values()) or 1.0
        self.done = 0.0
        self.parts: dict[str, float] = {}
        self.reasons: set[str] = set()  # why tasks failed

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        self.parts[key] = self.cost.get(key, 0.0) * done / max(total, 1)
        self.show(key)

    def finished(self, key: str, worker: int, status: str) -> None:
        self.parts.pop(key, None)
        self.done += self.cost.get(key, 0.0)
        self.num_done += 1
        if status != "ok":
            self.console.print(Text(status, "yellow"), f": {self.plan.label(key)} ({key})", sep="")
        self.show(key)

    def failed(self, key: str, worker: int, error: str) -> None:
        self.parts.pop(key, None)
        if (reason := last_line(error)) not in self.reasons:  # what is wrong with the data may fail a hundred tasks
            self.reasons.add(reason)
            self.console.print(Text("failed", "red"), f": {self.plan.label(key)} ({key}): {reason}", sep="")

    def put_back(self, key: str, worker: int, lost: str) -> None:
        self.parts.pop(key, None)
        if lost not in self.cost:
            self.num_tasks += 1
            self.cost[lost] = self.plan.cost[lost]
            self.total += self.cost[lost]
        self.show(key)

    def stalled(self, key: str, worker: int, what: str | None) -> None:
        state, why = ("goes on", "") if what is None else ("stalled", f": {what}")
        self.console.print(Text(state, "yellow"), f": {self.plan.label(key)} ({key}){why}", sep="")

    def told(self, text: str) -> None:
        self.console.print(text)

    @property
    def reached(self) -> float:
        return self.done + sum(self.parts.values())

    def show(self, key: str) -> None:
        """Show how far the run is, now that there is news of a task."""


class LiveProgress(RunProgress):
    """A bar for the whole run and a line for every worker."""

    def __init__(self, plan: Plan, missing: list[str], console: Console) -> None:
        super().__init__(plan, missing, console)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
        )
        self.all = self.progress.add_task("", total=self.total)
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
        if worker in self.lines:
            self.progress.remove_task(self.lines[worker])
        self.lines[worker] = self.progress.add_task("  " + visible(self.plan.label(key)), total=1)

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        self.progress.update(self.lines[worker], completed=done / max(total, 1))
        super().progressed(key, worker, done, total)

    def show(self, key: str) -> None:
        described = f"{self.num_done} of {self.num_tasks} tasks"
        self.progress.update(self.all, completed=self.reached, description=described)


class PlainProgress(RunProgress):
    """A line every few seconds, for logs."""

    def __init__(self, plan: Plan, missing: list[str], console: Console, every: float = 10.0) -> None:
        super().__init__(plan, missing, console)
        self.every = every
        self.begun = self.last = time.monotonic()

    def show(self, key: str) -> None:
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            part = self.reached / self.total
            left = (now - self.begun) * (1 - part) / part if part else float("nan")
            self.console.print(
                f"{self.num_done} of {self.num_tasks} tasks, {100 * part:.0f} %, {left:.0f} s left, now "
                f"{self.plan.label(key)}",
            )
