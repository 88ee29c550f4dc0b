"""Running a plan on this machine: worker processes take the tasks whose inputs are done, longest chain first."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from lthbench.options import OptionError
from lthbench.runner.device import DeviceLostError
from lthbench.runner.queue import Outcome, Queue
from lthbench.runner.settings import Settings
from lthbench.runner.stall import LEAST, LEAST_COMPILED, LOOK, Stalls, Watchdog, stalled_twice
from lthbench.runner.watcher import Watcher
from lthbench.runner.worker_process import WorkerProcess
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store, StoreError, unusable

if TYPE_CHECKING:
    from lthbench.runner.worker import Asked, Worker


def run_plan(
    plan: Plan,
    settings: Settings,
    num_workers: int,
    watcher: Watcher | None = None,
    *,
    missing: Collection[str] | None = None,
    retry_failed: bool = False,
) -> Outcome:
    """Run the tasks of a plan that are not done yet.

    Args:
        num_workers: processes; 0 runs everything in this one.
        missing: the keys that are not done, if known already.
        retry_failed: whether tasks that failed before are tried again.

    A failed task blocks those that need it, and nothing else. Workers end with this process, however it ends; what they
    had finished, and the last checkpoint of what they had not, stay. A worker that makes no progress for the settings'
    `stall_timeout` is replaced and its task tried once more.

    Raises:
        StoreError: the store's disk is full or read-only.
        OptionError: workers found other kernels than those of the sources.
        DeviceLostError: tasks ran in this process, and its GPU failed for good.
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
            _run_in_workers(_Run(plan, store, queue, watcher, outcome), settings, min(num_workers, len(queue.left)))
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
    """Run the tasks of a queue in this process, until none is left that can be run.

    Args:
        end: ends this process if a task has made no progress for the settings' `stall_timeout` (`Watchdog`); None only
            reports it.
    """
    from lthbench.runner.worker import Worker

    stalls = _stalls(settings, watcher, settings.stall_timeout if end else 0.0)
    watchdog = Watchdog(stalls, end or (lambda key, seconds: None))
    worker = Worker(settings, asked or (lambda: None), watcher.told, watchdog.again)
    with contextlib.closing(worker), watchdog:
        _run_in(worker, _Run(plan, worker.store, queue, watcher, outcome), watchdog)


def _stalls(settings: Settings, watcher: Watcher, timeout: float) -> Stalls:
    tell = lambda worker, key, what: watcher.stalled(key, worker, what)  # noqa: E731
    return Stalls(Store(settings.store), tell, timeout, least=LEAST_COMPILED if settings.compile else LEAST)


@dataclass
class _Run:
    """A run under way: what happens to a task is recorded in the queue, the outcome and the store, and reported."""

    plan: Plan
    store: Store
    queue: Queue
    watcher: Watcher
    outcome: Outcome

    def finish(self, key: str, worker: int, status: str) -> None:
        self.outcome.ran.append(key)
        self.watcher.finished(key, worker, status)
        self.queue.done(key)

    def fail(self, key: str, worker: int, error: str) -> None:
        self.outcome.failed[key] = error
        try:
            self.store.note_failure(key, error)
        except OSError as why:
            raise unusable(self.store.folder(key), why) from why
        self.watcher.failed(key, worker, error)

    def wait_for_input(self, key: str, worker: int, lost: str, error: str) -> None:
        """Make a task wait until one of its inputs has been computed again."""
        if self.queue.put_back(key, lost):
            self.watcher.put_back(key, worker, lost)
        else:
            self.fail(key, worker, f"{error}, which had been computed again before: is the disk sound?")

    def try_again(self, key: str, worker: int) -> None:
        """Put a task back into the queue, to resume from its last checkpoint."""
        self.queue.again(key)
        self.watcher.put_back(key, worker, key)


def _run_in(worker: Worker, run: _Run, watchdog: Watchdog) -> None:
    from lthbench.tasks.context import UnusableInputError

    while (key := run.queue.pop()) is not None:
        run.watcher.started(key, 0)
        watchdog.begin(key)

        def report(done: int, total: int, key: str = key) -> None:
            watchdog.stalls.sign(0)
            run.watcher.progressed(key, 0, done, total)

        try:
            result = worker.run(key, run.plan.tasks[key].canonical, run.plan.kept(key), report)
        except StoreError:
            raise
        except UnusableInputError as error:
            run.wait_for_input(key, 0, error.key, str(error))
        except DeviceLostError as error:
            if not error.try_again:
                run.fail(key, 0, traceback.format_exc())
            raise
        except Exception:
            run.fail(key, 0, traceback.format_exc())
        else:
            run.finish(key, 0, result["status"])
        finally:
            watchdog.stalls.end(0)


def _run_in_workers(run: _Run, settings: Settings, num_workers: int) -> None:
    workers = [WorkerProcess(index, settings) for index in range(num_workers)]
    stalls = _stalls(settings, run.watcher, settings.stall_timeout)
    ended: set[str] = set()  # the tasks at which a worker was ended before
    try:
        while True:
            _give_out(run, workers, stalls)
            busy = {worker.connection: worker for worker in workers if worker.key is not None}
            if not busy:
                return
            for connection in wait(list(busy), LOOK):
                worker = busy[connection]  # type: ignore[index]
                if _hear(run, worker, worker.receive(), stalls):
                    worker.key = None
                    stalls.end(worker.index)
                    if not worker.process.is_alive():
                        workers[worker.index] = WorkerProcess(worker.index, worker.settings)
            for index, seconds in stalls.look().items():
                worker = workers[index]
                assert worker.key is not None
                workers[index] = worker.replaced(run.watcher)
                stalls.end(index)
                if worker.key in ended:
                    run.fail(worker.key, index, stalled_twice(seconds))
                else:
                    ended.add(worker.key)
                    run.watcher.told(f"task {worker.key} is tried once more, from its last checkpoint")
                    run.try_again(worker.key, index)
    finally:
        with _uninterrupted():
            for worker in workers:
                worker.stop()


def _give_out(run: _Run, workers: list[WorkerProcess], stalls: Stalls) -> None:
    """Give every idle worker a task, as long as there are tasks that can be run."""
    for worker in list(workers):
        if worker.key is None and (key := run.queue.pop()) is not None:
            if not worker.send(key, run.plan):  # it died while it had nothing to do
                worker = workers[worker.index] = WorkerProcess(worker.index, worker.settings)
                worker.send(key, run.plan)
            run.watcher.started(key, worker.index)
            stalls.begin(worker.index, key, worker.pid)


def _hear(run: _Run, worker: WorkerProcess, message: dict[str, Any], stalls: Stalls) -> bool:
    """Handle a worker's message; return whether the worker is done with its task."""
    assert worker.key is not None
    key, index = worker.key, worker.index
    match message["kind"]:
        case "progress":
            stalls.sign(index)
            run.watcher.progressed(key, index, message["done"], message["total"])
            return False
        case "told":
            run.watcher.told(message["text"])
            return False
        case "waits":
            stalls.begin(index, key, worker.pid)
            return False
        case "input":
            run.wait_for_input(key, index, message["lost"], message["error"])
        case "result":
            run.finish(key, index, message["status"])
        case "failure":
            run.fail(key, index, message["error"])
        case "lost":
            worker.process.join()  # another takes its place
            if message["try_again"]:
                run.try_again(key, index)
            else:
                run.fail(key, index, message["error"])
        case "store":
            raise StoreError(message["error"])
        case "option":
            raise OptionError(message["error"])
    return True


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore further Ctrl-C while workers are stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
