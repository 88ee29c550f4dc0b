"""When a worker is taken for hung, by a clock that the test moves."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lthbench.lease import Lease
from lthbench.runner.signals import Signals
from lthbench.runner.slurm import lane_job
from lthbench.runner.slurm.lane_job import JobSpec
from lthbench.runner.stall import BEGINNING, OwnTime, Stall, Stalls
from lthbench.runner.status import suite_status
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.tasks.atomic import write_json
from lthbench.tasks.paths import ENDED, FAILURE, LEASE, STALLED
from lthbench.tasks.store import Store


class Watch:
    """Stalls with a clock of the test's own, and what was told."""

    def __init__(self, folder: Path, timeout: float = 0.0, least: float = 60.0) -> None:
        self.now = 0.0
        self.told: list[str] = []
        tell = lambda worker, key, what: self.told.append("hangs" if what else "goes on")  # noqa: E731
        self.stalls = Stalls(Store(folder), tell, timeout, least=least, time=lambda: self.now)
        self.stalls.begin(0, "0" * 32, 1)

    def signs(self, *pauses: float) -> None:
        """Let the worker show a sign after each pause, with looks in between."""
        for pause in pauses:
            for _ in range(10):
                self.now += pause / 10
                self.stalls.look()
            self.stalls.sign(0)

    def wait(self, seconds: float) -> dict[int, float]:
        self.now += seconds
        return self.stalls.look()


def test_a_slow_but_moving_worker_is_left_alone(tmp_path: Path) -> None:
    watch = Watch(tmp_path, timeout=1.0)
    watch.signs(300, 100, 900, 1500, 100)
    assert not watch.wait(20 * 1500 - 1) and not watch.told, "its own longest pause was 1500 s"


def test_a_worker_without_progress_is_reported_once_and_ended_after_the_timeout(tmp_path: Path) -> None:
    watch = Watch(tmp_path, timeout=1800.0)
    watch.signs(1, 1, 1)
    assert watch.wait(59) == {} and watch.told == []
    assert watch.wait(2) == {} and watch.told == ["hangs"]
    assert watch.wait(1738) == {} and watch.told == ["hangs"]
    assert watch.wait(2) == {0: 1801.0}


def test_without_a_timeout_nobody_is_ended(tmp_path: Path) -> None:
    watch = Watch(tmp_path, timeout=0.0)
    watch.signs(1, 1)
    assert watch.wait(1e6) == {} and watch.told == ["hangs"]


def test_a_worker_that_goes_on_is_reported_and_may_hang_again(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    watch.signs(1, 1)
    watch.wait(61)
    watch.stalls.sign(0)
    assert watch.told == ["hangs", "goes on"]
    watch.wait(20 * 61 + 1)
    assert watch.told == ["hangs", "goes on", "hangs"]


def test_the_first_steps_do_not_count_as_a_hang(tmp_path: Path) -> None:
    watch = Watch(tmp_path, timeout=1.0)
    assert watch.wait(BEGINNING / 2) == {}, "data are read"
    watch.stalls.sign(0)
    assert watch.wait(BEGINNING - 1) == {} and not watch.told, "the first step compiled, and tells no pace"
    assert watch.wait(2) and watch.told, "and yet who never gets further is noticed"


def test_a_worker_that_waits_for_another_process_does_not_hang(tmp_path: Path) -> None:
    watch = Watch(tmp_path, timeout=1.0)
    watch.signs(1, 1)
    for _ in range(1000):
        assert not watch.wait(59)
        watch.stalls.begin(0, "0" * 32, 1)
    assert not watch.told


def test_a_watcher_that_was_suspended_itself_takes_nobody_for_dead() -> None:
    now = 100.0
    time = OwnTime(lambda: now, most=5.0)
    now += 3
    assert time() == 3.0
    now += 86400
    assert time() == 8.0


@pytest.mark.parametrize("is_told", [True, False])
def test_status_names_the_stalled_holder_and_none_before_it(is_told: bool, tiny_suite: Path, tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "store"), make_plan(load_suite(tiny_suite))
    key = next(iter(plan.tasks))
    store.folder(key).mkdir(parents=True)
    process = os.getpid() if is_told else os.getpid() + 1
    stall = Stall(since="2026-01-01T00:00:00+00:00", seconds=99.0, process=process, machine="node3", job="7")
    write_json(store.folder(key) / STALLED, stall.model_dump())
    assert not suite_status(plan, store, tiny_suite).stalls, "nobody holds the task"
    with Lease(store.folder(key) / LEASE):
        assert suite_status(plan, store, tiny_suite).stalls == ({key: stall} if is_told else {})
    assert "99 s" in str(stall) and "node3, job 7" in str(stall)


def test_a_job_that_hangs_is_requeued_and_at_the_second_time_its_task_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    def requeue() -> None:
        raise SystemExit(122)  # as submitit does when it has requeued the job

    monkeypatch.setattr(os, "_exit", end)
    store, key = Store(tmp_path), "0" * 32
    order: Any = SimpleNamespace(store=tmp_path)
    signals: Any = SimpleNamespace(requeue=requeue)
    store.folder(key).mkdir(parents=True)
    for attempt in (1, 2):
        with pytest.raises(Ended, match="122"):
            lane_job._begin_anew(cast(JobSpec, order), cast(Signals, signals), key, 99.0)
        assert (store.folder(key) / ENDED).exists()
        assert (store.folder(key) / FAILURE).exists() is (attempt == 2)
    assert "--stall-timeout" in (store.failure(key) or "")
    store.forget_failure(key)
    assert not list(store.folder(key).iterdir()), "tried again, it has both attempts"
