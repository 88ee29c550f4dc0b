"""Running a plan on this machine: worker processes take the tasks whose inputs are done, longest chain first."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lthbench.runner.allocator import kept_memory
from lthbench.runner.device import DeviceLostError
from lthbench.runner.queue import Outcome, Queue
from lthbench.runner.settings import Device, Settings
from lthbench.runner.stall import LEAST, LEAST_COMPILED, LOOK, Stalls, Watchdog, stalled_twice
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store, StoreError, unusable

if TYPE_CHECKING:
    from lthbench.runner.worker import Asked, Worker


_GRACE = 5.0  # seconds that a worker has to end in


class Watcher:
    """Who is told of a run's progress; the base class listens and says nothing."""

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


def run_plan(
    plan: Plan,
    settings: Settings,
    num_workers: int,
    watcher: Watcher | None = None,
    *,
    missing: Collection[str] | None = None,
    devices: Sequence[Device] = (),
    retry_failed: bool = False,
) -> Outcome:
    """Run the tasks of a plan that are not done yet.

    Args:
        num_workers: processes; 0 runs everything in this one.
        missing: the keys that are not done, where that has been asked already.
        devices: workers are spread over these; none is the settings' device for all.
        retry_failed: whether tasks that failed before are tried again.

    A failed task keeps those that need it from running, and nothing else. Workers end with this process, however
    it ends; what they had finished, and the last checkpoint of what they had not, stay. A worker that makes no
    progress for the settings' `stall_timeout` is replaced and its task tried once more.

    Raises:
        StoreError: the store's disk is full or read-only.
        DeviceLostError: the GPU of this process, which ran tasks itself, can compute nothing more.
    """
    watcher = watcher or Watcher()
    store = Store(settings.store, watcher.told)
    if missing is None:
        missing = store.missing({key: plan.kept(key) for key in plan.tasks})
    failed_before = store.failures(missing)
    if retry_failed:
        for key in failed_before:
            store.forget_failure(key)
        failed_before = {}
    outcome = Outcome(failed=dict(failed_before))
    queue = Queue(plan, missing, [key for key in missing if key not in failed_before])
    if queue.left:
        if num_workers:
            each = [replace(settings, device=devices[i % len(devices)]) if devices else settings
                    for i in range(min(num_workers, len(queue.left)))]  # fmt: skip
            _run_in_workers(plan, store, each, queue, watcher, outcome)
        else:
            run_here(plan, settings, queue, watcher, outcome)
    outcome.blocked = sorted(set(queue.left) - set(outcome.failed))
    return outcome


def run_here(
    plan: Plan,
    settings: Settings,
    queue: Queue,
    watcher: Watcher,
    outcome: Outcome,
    asked: Asked | None = None,
    end: Callable[[str, float], None] | None = None,
) -> None:
    """Run what a queue gives in this process, until it gives no more.

    Args:
        end: ends this process where a task has made no progress for the settings' `stall_timeout` (`Watchdog`); None
            only tells of it.
    """
    from lthbench.runner.worker import Worker

    stalls = _stalls(settings, watcher, settings.stall_timeout if end else 0.0)
    watchdog = Watchdog(stalls, end or (lambda key, seconds: None))
    worker = Worker(settings, asked or (lambda: None), watcher.told, watchdog.again)
    with contextlib.closing(worker), watchdog:
        _run_in(worker, plan, queue, watcher, outcome, watchdog)


def _stalls(settings: Settings, watcher: Watcher, timeout: float) -> Stalls:
    tell = lambda worker, key, what: watcher.stalled(key, worker, what)  # noqa: E731
    return Stalls(Store(settings.store), tell, timeout, least=LEAST_COMPILED if settings.compile else LEAST)


def _run_in(worker: Worker, plan: Plan, queue: Queue, watcher: Watcher, outcome: Outcome, watchdog: Watchdog) -> None:
    from lthbench.tasks.context import UnusableInputError

    while (key := queue.pop()) is not None:
        watcher.started(key, 0)
        watchdog.begin(key)

        def report(done: int, total: int, key: str = key) -> None:
            watchdog.stalls.sign(0)
            watcher.progressed(key, 0, done, total)

        try:
            result = worker.run(key, plan.tasks[key].canonical, plan.kept(key), report)
        except StoreError:
            raise
        except UnusableInputError as error:
            _put_back(worker.store, queue, key, error.key, str(error), 0, watcher, outcome)
        except DeviceLostError as error:
            if not error.try_again:
                _fail(worker.store, key, traceback.format_exc(), 0, watcher, outcome)
            raise
        except Exception:
            _fail(worker.store, key, traceback.format_exc(), 0, watcher, outcome)
        else:
            outcome.ran.append(key)
            watcher.finished(key, 0, result["status"])
            queue.done(key)
        finally:
            watchdog.stalls.end(0)


def _run_in_workers(
    plan: Plan, store: Store, settings: Sequence[Settings], queue: Queue, watcher: Watcher, outcome: Outcome
) -> None:
    workers = [_WorkerProcess(index, its) for index, its in enumerate(settings)]
    stalls = _stalls(settings[0], watcher, settings[0].stall_timeout)
    ended: set[str] = set()  # the tasks at which a worker was ended before
    try:
        while True:
            for worker in list(workers):
                if worker.key is None and (key := queue.pop()) is not None:
                    if not worker.send(key, plan):  # it died while it had nothing to do
                        worker = workers[worker.index] = _WorkerProcess(worker.index, worker.settings)
                        worker.send(key, plan)
                    watcher.started(key, worker.index)
                    stalls.begin(worker.index, key, worker.pid)
            busy = {worker.connection: worker for worker in workers if worker.key is not None}
            if not busy:
                return
            for connection in wait(list(busy), LOOK):
                worker = busy[connection]  # type: ignore[index]
                assert worker.key is not None
                key = worker.key
                message = worker.receive()
                match message["kind"]:
                    case "progress":
                        stalls.sign(worker.index)
                        watcher.progressed(key, worker.index, message["done"], message["total"])
                        continue
                    case "told":
                        watcher.told(message["text"])
                        continue
                    case "waits":
                        stalls.begin(worker.index, key, worker.pid)
                        continue
                    case "input":
                        _put_back(store, queue, key, message["lost"], message["error"], worker.index, watcher, outcome)
                    case "result":
                        outcome.ran.append(key)
                        watcher.finished(key, worker.index, message["status"])
                        queue.done(key)
                    case "failure":
                        _fail(store, key, message["error"], worker.index, watcher, outcome)
                    case "lost":
                        worker.process.join()  # which another takes the place of
                        if message["try_again"]:
                            queue.again(key)
                            watcher.put_back(key, worker.index, key)
                        else:
                            _fail(store, key, message["error"], worker.index, watcher, outcome)
                    case "store":
                        raise StoreError(message["error"])
                worker.key = None
                stalls.end(worker.index)
                if not worker.process.is_alive():
                    workers[worker.index] = _WorkerProcess(worker.index, worker.settings)
            for index, seconds in stalls.look().items():
                worker = workers[index]
                assert worker.key is not None
                workers[index] = worker.replaced(watcher)
                stalls.end(index)
                if worker.key in ended:
                    _fail(store, worker.key, stalled_twice(seconds), index, watcher, outcome)
                else:
                    ended.add(worker.key)
                    watcher.told(f"task {worker.key} is tried once more, from its last checkpoint")
                    queue.again(worker.key)
                    watcher.put_back(worker.key, index, worker.key)
    finally:
        with _uninterrupted():
            for worker in workers:
                worker.stop()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """While workers are stopped, further Ctrl-C are one too many."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _put_back(
    store: Store, queue: Queue, key: str, lost: str, error: str, worker: int, watcher: Watcher, outcome: Outcome
) -> None:
    """Let a task wait until one that it reads has been computed again."""
    if queue.put_back(key, lost):
        watcher.put_back(key, worker, lost)
    else:
        _fail(
            store, key, f"{error}, which had been computed again before: is the disk sound?", worker, watcher, outcome
        )


def _fail(store: Store, key: str, error: str, worker: int, watcher: Watcher, outcome: Outcome) -> None:
    outcome.failed[key] = error
    try:
        store.note_failure(key, error)
    except OSError as why:
        raise unusable(store.folder(key), why) from why
    watcher.failed(key, worker, error)


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """While a worker is started, hide the script of this process: the worker would begin by running it again."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class _WorkerProcess:
    """A worker and the pipe to it; messages are JSON."""

    def __init__(self, index: int, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.index, self.settings = index, settings
        self.key: str | None = None
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, settings.dumps()), daemon=True)
        with kept_memory(), _without_script():
            self.process.start()
        theirs.close()

    def send(self, key: str, plan: Plan) -> bool:
        """Give the worker a task; whether it lives to hear of it."""
        self.key = key
        message = {"key": key, "spec": plan.tasks[key].canonical, "keep": sorted(plan.kept(key))}
        try:
            self.connection.send_bytes(json.dumps(message).encode())
        except OSError:
            return False
        return True

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

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def replaced(self, watcher: Watcher) -> _WorkerProcess:
        """End a worker that hears of nothing any more; returns one in its place."""
        self.connection.close()
        self.process.kill()
        self.process.join(_GRACE)
        left = "" if not self.process.is_alive() else "; it waits for a disk, and ends when that answers"
        watcher.told(f"worker process {self.pid} was ended{left}")
        return _WorkerProcess(self.index, self.settings)

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join(_GRACE)
        self.process.kill()  # one that is suspended hears of nothing else
        self.process.join(_GRACE)  # and one that waits for a dead disk not even of that


def _serve(connection: Connection, options: str) -> None:
    """A worker's life: tasks in, results out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def send(**message: Any) -> None:
        try:
            connection.send_bytes(json.dumps(message).encode())
        except OSError:  # the parent is gone: nobody waits for this work, and its successor wants the folder
            os._exit(1)

    from lthbench.runner.worker import Worker
    from lthbench.tasks.context import UnusableInputError

    worker = Worker(
        Settings.loads(options), tell=lambda text: send(kind="told", text=text), waits=lambda: send(kind="waits")
    )
    report: Callable[[int, int], None] = lambda done, total: send(kind="progress", done=done, total=total)  # noqa: E731
    while True:
        try:
            message = json.loads(connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            sys.exit(0)
        try:
            result = worker.run(message["key"], message["spec"], frozenset(message["keep"]), report)
        except StoreError as error:
            send(kind="store", error=str(error))
        except UnusableInputError as error:
            send(kind="input", lost=error.key, error=str(error))
        except DeviceLostError as error:
            send(kind="told", text=str(error))
            send(kind="lost", try_again=error.try_again, error=traceback.format_exc())
            os._exit(1)  # at a normal end libraries would still ask the device for something
        except Exception:
            send(kind="failure", error=traceback.format_exc())
        else:
            send(kind="result", status=result["status"])
