"""Worker processes that end, with tasks that take no time."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from conftest import TINY

from lthbench.runner import worker_process
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.runner.watcher import Watcher
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.tasks.store import Store


def do_nothing(connection: Connection, options: str) -> None:
    """A worker for which every task is done at once."""
    while True:
        connection.recv_bytes()
        connection.send_bytes(json.dumps({"kind": "result", "status": "ok"}).encode())


class Killer(Watcher):
    """Ends the worker that has nothing to do yet when the other begins, and waits for its end."""

    def __init__(self) -> None:
        self.killed, self.before = 0, set(multiprocessing.active_children())

    def started(self, key: str, worker: int) -> None:
        if not self.killed:
            workers = set(multiprocessing.active_children()) - self.before
            _, idle = sorted(workers, key=lambda process: process.pid or 0)
            idle.kill()
            idle.join()
            self.killed = 1


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: fork)
    monkeypatch.setattr(worker_process, "serve", do_nothing)
    (tmp_path / "suite.yaml").write_text(TINY)
    plan, store = make_plan(load_suite(tmp_path / "suite.yaml")), Store(tmp_path / "store")
    store.check()
    watcher = Killer()
    outcome = run_plan(plan, Settings(store.root), 2, watcher)
    assert watcher.killed and sorted(outcome.ran) == sorted(plan.tasks) and not outcome.failed
