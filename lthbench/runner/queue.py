"""`Queue`: which of the tasks that are to be run can be run now."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from lthbench.suite.plan import Plan


@dataclass
class Outcome:
    """How a run ended: the tasks that ran, that failed (with the reason), and that waited on one that is not done."""

    ran: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)


def last_line(error: str) -> str:
    """Why a task failed: the last line of its traceback."""
    return error.strip().splitlines()[-1]


class Queue:
    """The tasks still to do; `pop` returns one whose inputs are done, the one with the longest chain behind it first.

    Args:
        missing: all keys of the plan that are not done.
        wanted: those of them that are to be run; a task that needs another missing one stays in `left`.
    """

    def __init__(self, plan: Plan, missing: Collection[str], wanted: Collection[str]) -> None:
        self.plan = plan
        missing = set(missing)
        self.left = dict.fromkeys(wanted)
        self._waiting = {key: sum(t.key in missing for t in plan.tasks[key].inputs) for key in wanted}
        self._users: dict[str, list[str]] = {}
        for key in wanted:
            for task in plan.tasks[key].inputs:
                if task.key in missing:
                    self._users.setdefault(task.key, []).append(key)
        ready = [key for key in wanted if not self._waiting[key]]
        self._ready = [(-plan.depth[key], order, key) for order, key in enumerate(ready)]
        heapq.heapify(self._ready)
        self._order = len(ready)
        self._computed_again: Counter[str] = Counter()

    def pop(self) -> str | None:
        """The next task, or None if all that are left wait."""
        return heapq.heappop(self._ready)[2] if self._ready else None

    def done(self, key: str) -> None:
        """Mark a task as done, so that those that wait for it may run."""
        self.left.pop(key, None)
        for user in self._users.pop(key, ()):
            self._waiting[user] -= 1
            if not self._waiting[user]:
                self._push(user)

    def put_back(self, key: str, lost: str) -> bool:
        """Let a task wait for an input that has to be computed again, as its files were found to be gone or damaged.

        Returns:
            False if that is in vain, because it has been computed again before.
        """
        self._computed_again[lost] += lost not in self.left
        if self._computed_again[lost] > 1:
            return False
        self._waiting[key] = 1
        self._users.setdefault(lost, []).append(key)
        if lost not in self.left:
            self.left[lost] = None
            inputs = [task.key for task in self.plan.tasks[lost].inputs if task.key in self.left]
            for other in inputs:
                self._users.setdefault(other, []).append(lost)
            self._waiting[lost] = len(inputs)
            if not inputs:
                self._push(lost)
        return True

    def again(self, key: str) -> None:
        """Put a task that was popped back into the queue."""
        self._push(key)

    def _push(self, key: str) -> None:
        self._order += 1
        heapq.heappush(self._ready, (-self.plan.depth[key], self._order, key))
