"""A worker that hangs is reported and replaced, and the results keep their bits."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from conftest import TINY

from lthbench.lease import holder_of
from lthbench.runner import local, stall
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.runner.watcher import Watcher
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.paths import LEASE, STALLED
from lthbench.tasks.store import Store

# Long enough for its worker to be suspended in it.
SUITE = TINY.replace("late: {recipe: {optimizer: {lr: 0.2}}}", "").replace("3ep", "20ep").split("    experiments:")[0]
SUITE += "    experiments: {imp: {levels: 1}}\n"


class Stopper(Watcher):
    """Suspends the process at a task, after its first sign, as often as it is told to, and keeps what is told of it."""

    def __init__(self, store: Store, times: int) -> None:
        self.store, self.left = store, times
        self.signs: dict[str, int] = {}
        self.stalls: list[str] = []
        self.noted = False
        self.pids: set[int] = set()

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        self.signs[key] = self.signs.get(key, 0) + 1
        if self.left and self.signs[key] >= 2 and (holder := holder_of(self.store.folder(key) / LEASE)):
            os.kill(holder.who.pid, signal.SIGSTOP)
            self.left, self.signs[key] = self.left - 1, 0
            self.pids.add(holder.who.pid)

    def stalled(self, key: str, worker: int, what: str | None) -> None:
        self.stalls.append(what or "goes on")

    def told(self, text: str) -> None:
        self.noted |= any(self.store.root.glob(f"tasks/*/*/{STALLED}"))


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(local, "LEAST", 2.0)
    monkeypatch.setattr(local, "LOOK", 0.05)
    monkeypatch.setattr(stall, "LOOK", 0.05)
    (tmp_path / "suite.yaml").write_text(SUITE)
    return make_plan(load_suite(tmp_path / "suite.yaml"))


def new_store(folder: Path) -> Store:
    store = Store(folder)
    store.check()
    return store


def digests(plan: Plan, store: Store) -> dict[str, object]:
    return {key: (result := store.result(key)) and result["artefacts"] for key in plan.tasks}


@pytest.mark.slow
def test_a_suspended_worker_is_replaced_and_the_suite_ends_in_the_same_bits(plan: Plan, tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    watcher = Stopper(store, times=1)
    outcome = run_plan(plan, Settings(store.root, checkpoint_every=0, stall_timeout=4.0), 1, watcher)
    assert not outcome.failed and sorted(outcome.ran) == sorted(plan.tasks)
    (pid,) = watcher.pids
    told = next(what for what in watcher.stalls if f"process {pid}" in what)
    assert "no progress" in told and "--stall-timeout" in told
    assert watcher.noted, "status and watch see it in the store"
    assert not list(store.root.glob(f"tasks/*/*/{STALLED}"))
    straight = new_store(tmp_path / "straight")
    run_plan(plan, Settings(straight.root), 0)
    assert digests(plan, store) == digests(plan, straight)


@pytest.mark.slow
def test_a_task_that_hangs_twice_has_failed(plan: Plan, tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    watcher = Stopper(store, times=2)
    outcome = run_plan(plan, Settings(store.root, stall_timeout=4.0), 1, watcher)
    (error,) = outcome.failed.values()
    assert "second time" in error and len(watcher.pids) == 2 and outcome.blocked


def test_what_hangs_in_this_process_is_told_by_a_thread_and_ended_where_someone_can(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hung(Watcher):
        def __init__(self) -> None:
            self.signs, self.told_of, self.over = 0, threading.Event(), threading.Event()

        def progressed(self, key: str, worker: int, done: int, total: int) -> None:
            self.signs += 1
            if self.signs == 2:
                assert self.told_of.wait(100), "nobody noticed"
                assert self.over.wait(100), "and nobody ended it"

        def stalled(self, key: str, worker: int, what: str | None) -> None:
            self.told_of.set()

    store, watcher = new_store(tmp_path / "store"), Hung()
    ended: list[str] = []

    def end(key: str, seconds: float) -> None:
        ended.append(key)
        watcher.over.set()

    outcome = local.Outcome()
    queue = local.Queue(plan, list(plan.tasks), list(plan.tasks))
    local.run_here(plan, Settings(store.root, stall_timeout=0.5), queue, watcher, outcome, end=end)
    assert ended and sorted(outcome.ran) == sorted(plan.tasks)
