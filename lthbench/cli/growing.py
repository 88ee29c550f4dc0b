"""What a run shows before it is done: the first tickets, and a report that is written again as parts are done."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from lthbench.experiments.imp import Imp
from lthbench.suite.plan import Plan

_SHARE = 0.05  # of the time, at most, goes into reports of what is not done yet
_SOONEST = 20.0  # seconds between two reports


class Growing:
    """Watches which parts of a plan are done: an experiment of a pair and one replicate, with all arms.

    Args:
        report: writes the report; called in a thread, now and then after a part is done.
        tickets: shows the first tickets of a pair; called once for each, with the pair's name.
    """

    def __init__(self, report: Callable[[], Path] | None, tickets: Callable[[Plan, str], None]) -> None:
        self._report, self._tickets = report, tickets
        self._parts: dict[str, list[set[str]]] = defaultdict(list)  # key -> what is left of the parts that need it
        self._first: dict[int, str] = {}  # id of a part with tickets -> its pair
        self._shown: set[str] = set()
        self._is_stale = False
        self._writing: threading.Thread | None = None
        self._next = time.monotonic() + _SOONEST

    def begin(self, plan: Plan, missing: Iterable[str]) -> None:
        """Take up a round's plan."""
        self.plan, wanted = plan, set(missing)
        left: dict[tuple[str, str, int], set[str]] = defaultdict(set)
        for one in plan.measurements:
            keys = {task.key for task in (one.measurement.task, *one.measurement.others)}
            left[one.cell.pair, one.experiment, one.cell.replicate] |= keys & wanted
        self._parts.clear()
        self._first.clear()
        for (pair, label, replicate), keys in left.items():
            for key in keys:
                self._parts[key].append(keys)
            experiment = plan.suite.pairs[pair].experiments[label]
            if isinstance(experiment, Imp) and experiment.levels and replicate in plan.suite.tested():
                self._first[id(keys)] = pair

    def done(self, key: str) -> None:
        """Note that a task is done; shows and writes what that gives."""
        for keys in self._parts.pop(key, ()):
            keys.discard(key)
            if not keys:
                self._is_stale = True
                pair = self._first.get(id(keys))
                if pair is not None and pair not in self._shown:
                    self._shown.add(pair)
                    self._tickets(self.plan, pair)
        if self._is_stale and self._report and time.monotonic() >= self._next and not self._is_writing:
            self._is_stale = False
            self._writing = threading.Thread(target=self._write, daemon=True)
            self._writing.start()

    @property
    def _is_writing(self) -> bool:
        return self._writing is not None and self._writing.is_alive()

    def _write(self) -> None:
        assert self._report is not None
        begun = time.monotonic()
        with contextlib.suppress(Exception):  # the report at the end shows the error
            self._report()
        took = time.monotonic() - begun
        self._next = time.monotonic() + max(_SOONEST, took / _SHARE)

    def end(self) -> None:
        """Wait for a report that is being written, so that the last one is the run's last word."""
        if self._writing is not None:
            self._writing.join()
