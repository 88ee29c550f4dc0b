"""A small suite runs on a GPU: trainings, masks and lines, with the results of the CPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from lthbench.runner.local import run_plan
from lthbench.runner.queue import Outcome
from lthbench.runner.settings import Settings
from lthbench.runner.store import Store
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan

SUITE = """\
title: small
replicates: 1
pairs:
  lenet:
    model: {name: lenet-300-100, width: 10}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 100}
    pruning: {rate: 0.36, rates: {head: 0.18}}
    recipe: {steps: 2ep, batch_size: 64, optimizer: {name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1.0e-3}}
    arms: {early: {class: early}}
    experiments:
      rewound: {kind: imp, levels: 1, rewind: 1ep}
      controls: {levels: [1]}
  resnet:
    model: {name: resnet8, width: 8}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 100}
    pruning: {rate: 0.36}
    recipe: {steps: 1ep, batch_size: 50, augment: {crop: 2, flip: true}, optimizer: {name: adamw, lr: 0.01}}
    arms: {early: {class: early}}
    experiments: {imp: {levels: 1}, stability: {spawns: [0it], points: 3, num_train: 100}}
  conv:
    model: {name: conv-2, width: 4}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 100}
    pruning: {rate: 0.36}
    recipe: {steps: 1ep, batch_size: 50, precision: bfloat16, ema: 0.5, optimizer: {name: sgd, lr: 0.05}}
    arms: {early: {class: early}}
    experiments: {imp: {levels: 1}}
"""


def run(folder: Path, device: str) -> tuple[Plan, Store, Outcome]:
    (folder / "suite.yaml").write_text(SUITE)
    plan = make_plan(load_suite(folder / "suite.yaml"))
    store = Store(folder / device)
    store.check()
    return plan, store, run_plan(plan, Settings(store.root, device=device), num_workers=0)


@pytest.mark.fake_cuda("sim")
def test_a_suite_on_the_device_has_the_results_of_the_cpu(tmp_path: Path) -> None:
    (plan, on_gpu, outcome), (_, on_cpu, _) = run(tmp_path, "cuda"), run(tmp_path, "cpu")
    assert outcome.failed == {}
    for key in plan.tasks:
        found, expected = on_gpu.result(key), on_cpu.result(key)
        assert found and expected
        assert found["environment"]["device"] != expected["environment"]["device"]
        assert found["metrics"].keys() == expected["metrics"].keys()
        for name, value in expected["metrics"].items():
            assert math.isclose(found["metrics"][name], value, rel_tol=0.02, abs_tol=0.02), (key, name)
