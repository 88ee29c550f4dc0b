"""A worker in its own process, and the pipe for its tasks and messages."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from lthbench.options import OptionError
from lthbench.runner.allocator import kept_memory
from lthbench.runner.device import DeviceLostError, device_of_worker
from lthbench.runner.settings import Settings
from lthbench.runner.watcher import Watcher
from lthbench.suite.plan import Plan
from lthbench.tasks.store import StoreError

_GRACE = 5.0  # seconds within which a worker must end


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """While a worker is started, hide the script of this process: the worker would begin by running it again."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class WorkerProcess:
    """A worker, on the device of its index, and the pipe to it; messages are JSON."""

    def __init__(self, index: int, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.index, self.settings = index, settings
        self.key: str | None = None
        self.connection, theirs = context.Pipe()
        its = replace(settings, device=device_of_worker(settings.device, index, settings.processes))
        self.process: BaseProcess = context.Process(target=serve, args=(theirs, its.dumps(), index == 0), daemon=True)
        with kept_memory(), _without_script():
            self.process.start()
        theirs.close()

    def send(self, key: str, plan: Plan) -> bool:
        """Give the worker a task; return whether the worker is alive."""
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

    def replaced(self, watcher: Watcher) -> WorkerProcess:
        """End a worker that does not respond; return one in its place."""
        self.connection.close()
        self.process.kill()
        self.process.join(_GRACE)
        left = "" if not self.process.is_alive() else "; it waits for a disk, and ends when that answers"
        watcher.told(f"worker process {self.pid} was ended{left}")
        return WorkerProcess(self.index, self.settings)

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join(_GRACE)
        self.process.kill()  # a suspended one responds to nothing else
        self.process.join(_GRACE)  # and one that waits for a dead disk not even to that


def serve(connection: Connection, options: str, is_first: bool) -> None:
    """The loop of a worker: tasks in, results out, until the pipe closes.

    Args:
        is_first: of the workers, which all have the same to tell of the kernels.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def send(**message: Any) -> None:
        try:
            connection.send_bytes(json.dumps(message).encode())
        except OSError:  # the parent is gone: no one waits for this result, and another process may need the folder
            os._exit(1)

    from lthbench.runner.execution import require_these_kernels, without_kernels
    from lthbench.runner.worker import Worker
    from lthbench.tasks.context import UnusableInputError

    settings = Settings.loads(options)
    try:
        require_these_kernels(settings.device)
    except OptionError as error:
        send(kind="option", error=str(error))
        return
    if is_first and (lack := without_kernels(settings.device)) is not None:
        send(kind="told", text=lack)
    worker = Worker(settings, tell=lambda text: send(kind="told", text=text), waits=lambda: send(kind="waits"))
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
            os._exit(1)  # a normal exit would call the lost device again
        except Exception:
            send(kind="failure", error=traceback.format_exc())
        else:
            send(kind="result", status=result["status"])
