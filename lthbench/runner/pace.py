"""`Pace`: how much of the work is done and how long the rest takes; one estimate for `run`, `watch` and `status`."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from lthbench.experiments.cell import Result
from lthbench.suite.plan import Plan, longest_chain

WINDOW = 180.0  # seconds over which the rate is taken, unless too few tasks were finished in them
FEWEST = 8  # tasks that a rate is taken over
_REMEMBERED = 20  # of tasks alike, how many of the last ones say how long another takes

Alike = tuple[str, str, float]  # pair, kind of task, image passes


class Pace:
    """What tasks have taken, and what that says of the others.

    A task's work is given in seconds of one worker: the mean of what those like it (of its pair, its kind and its image
    passes) took last; where none has been done, what a line through the others of its pair and kind says, since a task
    costs something however few images it sees; and before anything is known, in proportion to the image passes.
    """

    def __init__(self) -> None:
        self._took: dict[Alike, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._ended: deque[tuple[float, Alike]] = deque(maxlen=1000)
        self._lines: dict[tuple[str, str], tuple[float, float]] = {}

    def finished(self, plan: Plan, key: str, seconds: float, at: float) -> None:
        """Note a task that is done, the seconds that a worker was at it, and when it ended (seconds since 1970)."""
        alike = _alike(plan, key)
        self._took[alike].append(seconds)
        self._ended.append((at, alike))
        self._lines.clear()

    def work(self, plan: Plan, key: str) -> float:
        """The seconds that a task should take of one worker; before anything is done, its image passes."""
        return self._work(_alike(plan, key))

    def _work(self, alike: Alike) -> float:
        if took := self._took.get(alike):
            return statistics.fmean(took)
        if alike[:2] not in self._lines:
            self._lines[alike[:2]] = self._line(*alike[:2])
        constant, per_pass = self._lines[alike[:2]]
        return constant + per_pass * alike[2]

    def _line(self, pair: str, kind: str) -> tuple[float, float]:
        """Seconds of a task of this pair and kind, and seconds for each of its image passes."""
        points = [(cost, statistics.fmean(s)) for (p, k, cost), s in self._took.items() if (p, k) == (pair, kind)]
        if len(points) > 1:
            slope, intercept = statistics.linear_regression(*zip(*points, strict=True))
            if slope >= 0 and intercept >= 0:
                return intercept, slope
        if points:
            cost, seconds = (statistics.fmean(column) for column in zip(*points, strict=True))
            return (0.0, seconds / cost) if cost else (seconds, 0.0)
        known = [(cost, statistics.fmean(s)) for (_, _, cost), s in self._took.items() if cost]
        total = sum(cost for cost, _ in known)
        return 0.0, (sum(seconds for _, seconds in known) / total if total else 1.0)

    def part(self, plan: Plan, done: Iterable[str], left: Iterable[str], parts: Mapping[str, float]) -> float:
        """The share of the work of some tasks that is done.

        Args:
            done, left: those of them that are done, and those that are not.
            parts: of tasks under way, the share that is done.
        """
        reached = sum(self.work(plan, key) for key in done)
        undone = 0.0
        for key in left:
            share, work = parts.get(key, 0.0), self.work(plan, key)
            reached, undone = reached + share * work, undone + (1 - share) * work
        return reached / (reached + undone) if undone else 1.0

    def seconds_left(
        self, plan: Plan, left: Iterable[str], parts: Mapping[str, float], *, at_once: int, now: float | None = None
    ) -> float | None:
        """How long some tasks take that are not done; None before a task is.

        It is their work at the rate of the last minutes, and no less than that of the longest chain of them.

        Args:
            parts: of tasks under way, the share that is done.
            at_once: how many workers there are, where the rate is not known.
        """
        if not self._took:
            return None
        work = {key: self.work(plan, key) * (1 - parts.get(key, 0.0)) for key in left}
        total = sum(work.values())
        rate = self._rate(time.time() if now is None else now) or max(1, at_once)
        return max(total / rate, longest_chain(plan, work))

    def _rate(self, now: float) -> float | None:
        """Worker-seconds of work that were done in a second, of late; None where too few tasks were."""
        recent = [(at, alike) for at, alike in self._ended if now - at < WINDOW]
        ended = recent if len(recent) > FEWEST else list(self._ended)[-FEWEST - 1 :]
        if len(ended) <= FEWEST or now - ended[-1][0] > WINDOW + 2 * self._longest_task():
            return None
        # The first only says from when on the others were done.
        return sum(self._work(alike) for _, alike in ended[1:]) / max(1e-3, now - ended[0][0])

    def _longest_task(self) -> float:
        return max(max(seconds) for seconds in self._took.values())


def pace_of(plan: Plan, done: Mapping[str, Result], pace: Pace | None = None) -> Pace:
    """The pace of tasks that are done, by their results, in the order in which they were."""
    pace = pace or Pace()
    ends = {key: datetime.fromisoformat(result["finished"]).timestamp() for key, result in done.items()}
    for key in sorted(ends, key=lambda key: ends[key]):
        pace.finished(plan, key, float(done[key]["seconds"]), ends[key])
    return pace


def _alike(plan: Plan, key: str) -> Alike:
    return plan.cells[key].pair, plan.tasks[key].spec.kind, plan.cost[key]


def in_words(seconds: float) -> str:
    """A time as people say it: `about 40 seconds`, `about 4 minutes`, `about 3 hours`, `about 2 years`."""
    for unit, size in (("year", 365.25 * 86400), ("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 1.5 * size:
            count = seconds / size
            return f"about {count:,.0f} {unit}s" if count >= 9.5 else f"about {count:.2g} {unit}s"
    if seconds >= 50:
        return "about a minute"
    return f"about {max(5, round(seconds / 5) * 5)} seconds"


def clock(seconds: float) -> str:
    """A time as a clock shows it: `0:04:10`, `2 days, 1:00:00`."""
    return str(timedelta(seconds=round(seconds)))
