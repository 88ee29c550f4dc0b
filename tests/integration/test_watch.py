"""Watching a suite: what a store alone tells of tasks that are done, run, or failed."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import pytest
from conftest import Call
from synthetic_store import put_result

import lthbench.runner.live as live_module
from lthbench.lease import Lease
from lthbench.runner.live import Live
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.atomic import write_atomically
from lthbench.tasks.paths import CHECKPOINT, LEASE, SPEC
from lthbench.tasks.spec import TrainSpec
from lthbench.tasks.store import Store
from lthbench.tasks.tensor_files import write_tensors


def test_a_finished_suite_is_done(tiny_run: tuple[Plan, Store]) -> None:
    found = Live(*tiny_run).look()
    assert found.is_done and found.part == 1.0 and not found.running and not found.failures
    assert sum(arm.tasks for arm in found.arms) == len(tiny_run[0].tasks)


def test_running_and_failed_tasks_are_told_with_their_progress(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = make_plan(load_suite(tiny_suite)), Store(tmp_path / "store")
    live = Live(plan, store)
    assert not live.look().running
    trained = next(key for key, task in plan.tasks.items() if isinstance(task.spec, TrainSpec) and not task.spec.begin)
    folder = store.folder(trained)
    folder.mkdir(parents=True)
    write_atomically(folder / SPEC, plan.tasks[trained].canonical.encode())
    with Lease(folder / LEASE):
        (running,) = live.look().running
        assert (running.key, running.part, running.is_silent) == (trained, None, False)
        write_tensors(folder / CHECKPOINT, {}, {"progress": {"step": 5}})  # of 15
        (running,) = live.look().running
        assert running.part == pytest.approx(1 / 3)
        assert not live.look().running[0].is_silent
        monkeypatch.setattr(live_module, "PATIENCE", 0.0)
        assert live.look().running[0].is_silent
        os.utime(folder / LEASE, (0, 1e9))  # whatever the clocks say: it has been touched
        assert not live.look().running[0].is_silent
    failed = next(key for key in plan.tasks if key != trained)
    store.note_failure(failed, "Traceback\nOSError: no space")
    found = live.look()
    assert not found.running and found.failures == {failed: "Traceback\nOSError: no space"}
    assert sum(arm.failed for arm in found.arms) == 1 and not found.is_done


def test_what_is_done_and_the_time_left_follow_the_results(
    tiny_run: tuple[Plan, Store], tiny_suite: Path, tmp_path: Path
) -> None:
    plan, _ = tiny_run
    store = Store(tmp_path / "store")
    live = Live(plan, store)
    before = live.look()
    assert before.part == 0 and before.seconds_left is None
    key = next(iter(plan.tasks))
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    put_result(store, plan.tasks[key], plan.kept(key), finished=now)
    after = live.look()
    assert sum(arm.done for arm in after.arms) == 1
    assert after.part == pytest.approx(plan.cost[key] / sum(plan.cost.values()))
    assert after.seconds_left is not None and after.seconds_left > 0


def test_without_a_terminal_watch_prints_once(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    Store(tmp_path / "store").check()
    code, shown, _ = call("watch", tiny_suite, "--store", tmp_path / "store")
    assert code == 0 and "0 of" in shown and "early" in shown
