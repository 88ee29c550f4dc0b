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

from lthbench.runner.local import Watcher
from lthbench.suite.plan import Plan, describe


def label(plan: Plan, key: str) -> str:
    """What a task is, for people: pair, arm, replicate, work."""
    cell = plan.cells[key]
    return f"{cell.pair} {cell.arm} #{cell.replicate}: {describe(plan.tasks[key])}"


class _Costs:
    """How much of the missing work is done, in image passes, parts of running tasks included."""

    def __init__(self, plan: Plan, missing: list[str]) -> None:
        self.cost = {key: plan.cost[key] for key in missing}
        self.total = sum(self.cost.values())
        self.done = 0.0
        self.parts: dict[str, float] = {}

    def progressed(self, key: str, fraction: float) -> None:
        self.parts[key] = self.cost.get(key, 0.0) * fraction

    def finished(self, key: str) -> None:
        self.parts.pop(key, None)
        self.done += self.cost.get(key, 0.0)

    @property
    def reached(self) -> float:
        return self.done + sum(self.parts.values())


class LiveProgress(Watcher):
    """A bar for the whole run and a line for every worker."""

    def __init__(self, plan: Plan, missing: list[str], console: Console) -> None:
        self.plan, self.costs = plan, _Costs(plan, missing)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
        )
        self.num_tasks, self.num_done = len(missing), 0
        self.all = self.progress.add_task("", total=self.costs.total or 1)
        self.lines: dict[int, TaskID] = {}
        self._update()

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
        self.lines[worker] = self.progress.add_task("  " + label(self.plan, key), total=1)

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        self.costs.progressed(key, done / max(total, 1))
        self.progress.update(self.lines[worker], completed=done / max(total, 1))
        self._update()

    def finished(self, key: str, worker: int, status: str) -> None:
        self.costs.finished(key)
        self.num_done += 1
        if status != "ok":
            self.progress.console.print(f"[yellow]{status}[/]: {label(self.plan, key)} ({key})")
        self._update()

    def failed(self, key: str, worker: int, error: str) -> None:
        self.progress.console.print(
            f"[red]failed[/]: {label(self.plan, key)} ({key}): {error.strip().splitlines()[-1]}"
        )

    def _update(self) -> None:
        self.progress.update(
            self.all, completed=self.costs.reached, description=f"{self.num_done} of {self.num_tasks} tasks"
        )


class PlainProgress(Watcher):
    """A line every few seconds, for logs."""

    def __init__(self, plan: Plan, missing: list[str], console: Console, every: float = 10.0) -> None:
        self.plan, self.costs, self.console, self.every = plan, _Costs(plan, missing), console, every
        self.begun = self.last = time.monotonic()
        self.num_tasks, self.num_done = len(missing), 0

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        self.costs.progressed(key, done / max(total, 1))
        self._tell(key)

    def finished(self, key: str, worker: int, status: str) -> None:
        self.costs.finished(key)
        self.num_done += 1
        if status != "ok":
            self.console.print(f"{status}: {label(self.plan, key)} ({key})")
        self._tell(key)

    def failed(self, key: str, worker: int, error: str) -> None:
        self.console.print(f"failed: {label(self.plan, key)} ({key}): {error.strip().splitlines()[-1]}")

    def _tell(self, key: str) -> None:
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            part = self.costs.reached / (self.costs.total or 1)
            left = (now - self.begun) * (1 - part) / part if part else float("nan")
            self.console.print(
                f"{self.num_done} of {self.num_tasks} tasks, {100 * part:.0f} %, {left:.0f} s left, now "
                f"{label(self.plan, key)}",
                highlight=False,
            )
