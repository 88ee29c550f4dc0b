"""`Watcher`: the receiver of a run's progress."""

from __future__ import annotations

from collections.abc import Callable

from lthbench.suite.plan import Plan


class Watcher:
    """Receives a run's progress; the base class ignores it."""

    def started(self, key: str, worker: int) -> None: ...

    def progressed(self, key: str, worker: int, done: int, total: int) -> None: ...

    def finished(self, key: str, worker: int, status: str) -> None: ...

    def failed(self, key: str, worker: int, error: str) -> None: ...

    def put_back(self, key: str, worker: int, lost: str) -> None: ...

    def stalled(self, key: str, worker: int, what: str | None) -> None: ...

    def told(self, text: str) -> None: ...


class Callback(Watcher):
    """Calls a function after each task: with what it was, in words, and `ok`, `diverged`, `refused` or `failed`."""

    def __init__(self, plan: Plan, call: Callable[[str, str], None]) -> None:
        self._plan, self._call = plan, call

    def finished(self, key: str, worker: int, status: str) -> None:
        self._call(self._plan.label(key), status)

    def failed(self, key: str, worker: int, error: str) -> None:
        self._call(self._plan.label(key), "failed")
