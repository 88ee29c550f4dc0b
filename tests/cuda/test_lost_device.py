"""A GPU that stops working, or is too small, costs the task that met it an attempt, and no other task anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lthbench.runner.device import Device, DeviceLostError, DeviceMemoryError
from lthbench.runner.local import run_plan
from lthbench.runner.settings import RunOptions, Settings
from lthbench.runner.signals import Signals
from lthbench.runner.slurm import lane_job
from lthbench.runner.slurm.lane_job import LaneJob
from lthbench.runner.watcher import Watcher
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.context import Context
from lthbench.tasks.store import Store

SUITE = """\
title: one arm
replicates: 1
pairs:
  tiny:
    model: {name: lenet-300-100, width: 10}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 70}
    pruning: {rate: 0.36, rates: {head: 0.18}}
    recipe: {steps: 1ep, batch_size: 64, optimizer: {name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1.0e-3}}
    arms: {early: {class: early}}
    experiments: {imp: {levels: 1}}
"""


class Told(Watcher):
    """Keeps what it is told, and the tasks that were put back."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.again: list[str] = []

    def told(self, text: str) -> None:
        self.texts.append(text)

    def put_back(self, key: str, worker: int, lost: str) -> None:
        self.again.append(key)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "suite.yaml").write_text(SUITE)
    return make_plan(load_suite(tmp_path / "suite.yaml"))


@pytest.fixture
def on_gpu(tmp_path: Path) -> Settings:
    store = Store(tmp_path / "store")
    store.check()
    return Settings(store.root, device=Device("cuda"))


@pytest.mark.fake_cuda("sim")
def test_a_worker_that_loses_its_device_is_replaced_and_the_task_tried_once_more(
    plan: Plan, on_gpu: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "break").touch()
    monkeypatch.setenv("FAKE_CUDA_BREAK", str(tmp_path / "break"))
    watcher = Told()
    outcome = run_plan(plan, on_gpu, num_workers=1, watcher=watcher)
    assert not (tmp_path / "break").exists()
    assert outcome.failed == {}
    assert sorted(outcome.ran) == sorted(plan.tasks)
    assert len(watcher.again) == 1
    assert any("illegal memory access" in text for text in watcher.texts)


@pytest.mark.fake_cuda("guard")
def test_a_task_that_loses_the_device_twice_has_failed_and_no_other_task_is_tried_on_it(
    plan: Plan, on_gpu: Settings
) -> None:
    import fake_cuda

    store = Store(on_gpu.store)
    torch.ones(1, device="cuda")
    fake_cuda.break_device()
    try:
        with pytest.raises(DeviceLostError, match="goes on in another"):
            run_plan(plan, on_gpu, num_workers=0)
        assert store.failures(list(plan.tasks)) == {}
        with pytest.raises(DeviceLostError, match="had lost it before"):
            run_plan(plan, on_gpu, num_workers=0)
        (failed,) = store.failures(list(plan.tasks))
        # What failed twice gets two attempts again where it is tried again.
        store.forget_failure(failed)
        with pytest.raises(DeviceLostError, match="goes on in another"):
            run_plan(plan, on_gpu, num_workers=0)
    finally:
        fake_cuda.mend_device()


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("times", [1, 2])
def test_too_little_memory_is_met_by_one_more_attempt_and_then_by_advice(
    times: int, plan: Plan, on_gpu: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved: list[int] = []
    graphs: list[bool] = []

    def found(spec: Any, context: Context) -> dict[str, Any]:
        reserved.append(torch.cuda.memory_reserved())
        graphs.append(context.graphs)
        if len(reserved) <= times:
            torch.empty(100 << 30, dtype=torch.uint8, device="cuda")
        return {"status": "ok", "metrics": {}}

    monkeypatch.setattr("lthbench.tasks.run._found", found)
    torch.empty(1 << 30, dtype=torch.uint8, device="cuda")  # and is cached now
    outcome = run_plan(plan, on_gpu, num_workers=0)
    assert reserved[0] >= 1 << 30 > reserved[1]
    assert graphs[:2] == [True, False]  # whose memory no other work can have
    if times == 1:
        assert not outcome.failed
    else:
        (error,) = outcome.failed.values()
        assert DeviceMemoryError.__name__ in error
        assert "micro_batch" in error and "--per-device" in error


def test_a_job_of_a_cluster_that_loses_its_device_is_requeued(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_lane(*arguments: Any) -> str:
        raise DeviceLostError("cuda was lost", try_again=True)

    order = SimpleNamespace(store=Path(), options=RunOptions(device="cpu"), grace=1.0, processes=1)
    requeued = []
    monkeypatch.setattr(lane_job.JobSpec, "parse", lambda text: order)
    monkeypatch.setattr(lane_job, "run_lane", run_lane)
    monkeypatch.setattr(Signals, "requeue", lambda self: requeued.append(True))
    with pytest.raises(DeviceLostError):
        LaneJob("")()
    assert requeued == [True]
