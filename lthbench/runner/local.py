"""Running a plan on this machine: worker processes take the tasks whose inputs are done, longest chain first."""

from __future__ import annotations

import contextlib
import functools
import heapq
import json
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from lthbench.runner.allocator import kept_memory
from lthbench.runner.settings import Settings
from lthbench.runner.store import Store
from lthbench.suite.plan import Plan

if TYPE_CHECKING:
    from lthbench.runner.work import Worker


class Watcher:
    """Who is told of a run's progress; the base class listens and says nothing."""

    def started(self, key: str, worker: int) -> None: ...

    def progressed(self, key: str, worker: int, done: int, total: int) -> None: ...

    def finished(self, key: str, worker: int, status: str) -> None: ...

    def failed(self, key: str, worker: int, error: str) -> None: ...


@dataclass
class Outcome:
    """How a run ended: the tasks that ran, that failed (with the reason), and that waited on a failed one."""

    ran: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)


class _Queue:
    """The tasks still to do; gives those whose inputs are done, the one with the longest chain behind it first."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan = plan
        missing = [key for key in plan.tasks if not store.is_done(key, plan.kept(key))]
        self.missing = set(missing)
        self.waiting = {key: sum(t.key in self.missing for t in plan.tasks[key].inputs) for key in missing}
        self.users: dict[str, list[str]] = {}
        for key in missing:
            for task in plan.tasks[key].inputs:
                if task.key in self.missing:
                    self.users.setdefault(task.key, []).append(key)
        self._ready = [(-plan.depth[key], order, key) for order, key in enumerate(missing) if not self.waiting[key]]
        heapq.heapify(self._ready)
        self._order = len(missing)

    def pop(self) -> str | None:
        return heapq.heappop(self._ready)[2] if self._ready else None

    def done(self, key: str) -> None:
        self.missing.discard(key)
        for user in self.users.get(key, ()):
            self.waiting[user] -= 1
            if not self.waiting[user]:
                self._order += 1
                heapq.heappush(self._ready, (-self.plan.depth[user], self._order, user))


def run_plan(plan: Plan, settings: Settings, num_workers: int, watcher: Watcher | None = None) -> Outcome:
    """Run the tasks of a plan that are not done yet.

    Args:
        num_workers: processes; 0 runs everything in this one.

    A failed task keeps those that need it from running, and nothing else. Workers end with this process, however
    it ends; what they had finished, and the last checkpoint of what they had not, stay.
    """
    watcher = watcher or Watcher()
    store = Store(settings.store)
    queue = _Queue(plan, store)
    outcome = Outcome()
    if queue.missing:
        if num_workers:
            _run_in_workers(plan, settings, min(num_workers, len(queue.missing)), queue, watcher, outcome)
        else:
            _run_here(plan, settings, queue, watcher, outcome)
    outcome.blocked = sorted(queue.missing - set(outcome.failed))
    return outcome


def _run_here(plan: Plan, settings: Settings, queue: _Queue, watcher: Watcher, outcome: Outcome) -> None:
    from lthbench.runner.work import Worker

    with contextlib.closing(Worker(settings)) as worker:
        _run_in(worker, plan, queue, watcher, outcome)


def _run_in(worker: Worker, plan: Plan, queue: _Queue, watcher: Watcher, outcome: Outcome) -> None:
    while (key := queue.pop()) is not None:
        watcher.started(key, 0)
        report = functools.partial(watcher.progressed, key, 0)
        try:
            result = worker.run(key, plan.tasks[key].canonical, plan.kept(key), report)
        except Exception:
            _note_failure(worker.store, key, traceback.format_exc(), outcome)
            watcher.failed(key, 0, outcome.failed[key])
        else:
            outcome.ran.append(key)
            watcher.finished(key, 0, result["status"])
            queue.done(key)


def _run_in_workers(
    plan: Plan, settings: Settings, num_workers: int, queue: _Queue, watcher: Watcher, outcome: Outcome
) -> None:
    store = Store(settings.store)
    workers = [_WorkerProcess(index, settings) for index in range(num_workers)]
    try:
        while True:
            for worker in workers:
                if worker.key is None and (key := queue.pop()) is not None:
                    worker.send(key, plan)
                    watcher.started(key, worker.index)
            busy = {worker.connection: worker for worker in workers if worker.key is not None}
            if not busy:
                return
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                assert worker.key is not None
                key = worker.key
                message = worker.receive()
                match message["kind"]:
                    case "progress":
                        watcher.progressed(key, worker.index, message["done"], message["total"])
                        continue
                    case "result":
                        outcome.ran.append(key)
                        watcher.finished(key, worker.index, message["status"])
                        queue.done(key)
                    case "failure":
                        _note_failure(store, key, message["error"], outcome)
                        watcher.failed(key, worker.index, message["error"])
                worker.key = None
                if not worker.process.is_alive():
                    workers[worker.index] = _WorkerProcess(worker.index, settings)
    finally:
        for worker in workers:
            worker.stop()


def _note_failure(store: Store, key: str, error: str, outcome: Outcome) -> None:
    from lthbench.tasks.files import write_json
    from lthbench.tasks.layout import FAILURE

    outcome.failed[key] = error
    folder = store.folder(key)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / FAILURE, {"error": error})


class _WorkerProcess:
    """A worker and the pipe to it; messages are JSON."""

    def __init__(self, index: int, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.index = index
        self.key: str | None = None
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, settings.dumps()), daemon=True)
        with kept_memory():
            self.process.start()
        theirs.close()

    def send(self, key: str, plan: Plan) -> None:
        self.key = key
        message = {"key": key, "spec": plan.tasks[key].canonical, "keep": sorted(plan.kept(key))}
        self.connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        try:
            message: dict[str, Any] = json.loads(self.connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode
            how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
            hint = "; the machine may be out of memory: try fewer --workers" if code == -signal.SIGKILL else ""
            return {"kind": "failure", "error": f"the worker process ended {how}{hint}"}
        return message

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _serve(connection: Connection, options: str) -> None:
    """A worker's life: tasks in, results out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def send(**message: Any) -> None:
        try:
            connection.send_bytes(json.dumps(message).encode())
        except OSError:  # the parent is gone: nobody waits for this work, and its successor wants the folder
            os._exit(1)

    from lthbench.runner.work import Worker

    worker = Worker(Settings.loads(options))
    report: Callable[[int, int], None] = lambda done, total: send(kind="progress", done=done, total=total)  # noqa: E731
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            sys.exit(0)
        try:
            result = worker.run(message["key"], message["spec"], frozenset(message["keep"]), report)
        except Exception:
            send(kind="failure", error=traceback.format_exc())
        else:
            send(kind="result", status=result["status"])
