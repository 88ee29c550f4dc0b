"""Worker processes that end, with tasks that take no time; and the device that each has."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from conftest import TINY

from lthbench.runner import worker_process
from lthbench.runner.device import Device, device_of_rank, device_of_worker, num_groups
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.runner.watcher import Watcher
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.tasks.store import Store


def do_nothing(connection: Connection, options: str, is_first: bool) -> None:
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


def test_workers_take_the_gpus_in_turn_and_leave_each_training_as_many_as_it_has_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 5)
    alone = [device_of_worker(Device("cuda"), index, 1) for index in range(7)]
    assert alone == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:0", "cuda:1"]
    assert num_groups(Device("cuda"), 2) == 2, "the fifth GPU is left over"
    assert [device_of_worker(Device("cuda"), index, 2) for index in range(3)] == ["cuda:0", "cuda:2", "cuda:0"]


@pytest.mark.parametrize("device", [Device("cpu"), Device("cuda:3")])
def test_all_workers_share_a_device_that_is_named(device: Device) -> None:
    assert num_groups(device, 1) == 1
    assert {device_of_worker(device, index, 1) for index in range(3)} == {device}


def test_the_ranks_of_a_training_take_the_gpus_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert str(device_of_rank(Device("cuda:1"))) == "cuda:3"
    assert str(device_of_rank(Device("cpu"))) == "cpu"
