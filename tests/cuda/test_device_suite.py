"""A suite of every experiment and every family of models runs on a GPU, fenced off and computed, killed and resumed."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import pytest

from lthbench.experiments import EXPERIMENTS
from lthbench.experiments.imported import Imported
from lthbench.models.spec import MODELS
from lthbench.runner.device import Device
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.runner.watcher import Watcher
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.schema import Suite
from lthbench.tasks.paths import CHECKPOINT
from lthbench.tasks.spec import MaskSpec
from lthbench.tasks.store import Store

# Each experiment, each family, each optimizer, in the fewest steps that have an epoch's end among them.
SUITE = """\
title: everything in small
replicates: 1
selection_replicates: 1
pairs:
  lenet:
    model: {name: lenet-300-100, width: 4}
    data: {name: fashion-mnist-10k, validation: 20, num_train: 40, num_test: 50}
    pruning: {rate: 0.36, rates: {head: 0.18}}
    recipe: {steps: 2ep, batch_size: 20, optimizer: {name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1.0e-3}}
    arms: {early: {class: early}, late: {class: late, recipe: {optimizer: {lr: 0.1}}}}
    experiments:
      imp: {levels: 1}
      rewound: {kind: imp, levels: 1, rewind: 1ep, arms: [late]}
      lr-rewinding: {levels: 1, arms: [late]}
      controls: {kinds: [reinit, random, shuffled, shuffled-weights, one-shot, movement], levels: [1], arms: [late]}
      crossed-masks: {levels: [1]}
      stability: {spawns: [0it], points: 3, arms: [late]}
      level-barriers: {levels: [1], points: 3, arms: [late]}
      onset: {grid: [0it, 1ep], points: 3, arms: [late]}
      aimp: {budgets: [0.5], levels: [1], arms: [late]}
      distance: {levels: [0, 1], points: 2, arms: [late]}
      regulariser: {strengths: [0.5], controls: [weight-decay, other-init, low-lr], levels: [1], arms: [late]}
      frozen-features:
        {networks: [ticket], levels: [1], normalisation: [batch, estimated, none, affine], arms: [late]}
      few-shot: {networks: [ticket], per_class: [1], draws: 1, steps: 2it, levels: [1], arms: [late]}
      transfer:
        networks: [ticket]
        targets: [{data: {name: fashion-mnist-10k, classes: [7, 9], num_train: 40, num_test: 50}, steps: 1ep}]
        levels: [1]
        arms: [late]
      convergence: {networks: [ticket], levels: [1], every: 1ep, arms: [late]}
      sensitivity: {vary: {optimizer.lr: [0.01]}, grid: [0it, 1ep], points: 3, arms: [late]}
  resnet:
    model: {name: resnet8, width: 8}
    data: {name: fashion-mnist-10k, validation: 20, num_train: 40, num_test: 20}
    pruning: {rate: 0.36}
    recipe: {steps: 1ep, batch_size: 20, augment: {crop: 2, flip: true}, optimizer: {name: adamw, lr: 0.01}}
    arms: {only: {}}
    experiments: {imp: {levels: 1}, stability: {spawns: [0it], points: 3, statistics: [interpolate, recompute]}}
  conv:
    model: {name: conv-2, width: 4}
    data: {name: fashion-mnist-10k, num_train: 40, num_test: 20}
    pruning: {rate: 0.36}
    recipe: {steps: 1ep, batch_size: 20, precision: bfloat16, ema: 0.5, optimizer: {name: sgd, lr: 0.05}}
    arms: {only: {}}
    experiments: {imp: {levels: 1}}
  vgg:
    model: {name: vgg11, width: 4}
    data: {name: fashion-mnist-10k, num_train: 12, num_test: 10}
    recipe: {steps: 1ep, batch_size: 6, optimizer: {name: sgd, lr: 0.01, momentum: 0.9, nesterov: true}}
    arms: {only: {}}
    experiments: {imp: {levels: 1}, stability: {spawns: [0it], points: 3}}
  resnet-imagenet:
    model: {name: resnet18}
    data: {name: fashion-mnist-10k, num_train: 4, num_test: 2}
    recipe: {steps: 1it, batch_size: 4, optimizer: {name: sgd, lr: 0.01, momentum: 0.9}}
    arms: {only: {}}
    experiments: {imp: {levels: 0}}
  swin:
    model: {name: swin-small64, width: 6, drop_path: 0.3}
    data: {name: fashion-mnist-10k, like: tinyimagenet, num_train: 10, num_test: 4}
    recipe:
      steps: 1ep
      batch_size: 6
      micro_batch: 4
      drop_last: true
      ema: 0.5
      label_smoothing: 0.1
      optimizer: {name: adamw, lr: 1.0e-3, weight_decay: 0.05}
      schedule: {name: cosine, warmup: 1it}
      augment: {crop: 4, flip: true, autoaugment: imagenet, erase: 0.25, mixup: 1.0, cutmix: 1.0, mix_probability: 0.5}
    arms: {only: {}}
    experiments: {imp: {levels: 1}}
"""


def suite_of(text: str, folder: Path) -> Suite:
    (folder / "suite.yaml").write_text(text)
    return load_suite(folder / "suite.yaml")


def store_of(root: Path) -> Store:
    store = Store(root)
    store.check()
    return store


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return suite_of(SUITE, tmp_path)


def test_the_suite_has_every_experiment_and_every_family(suite: Suite) -> None:
    kinds = {type(kind) for pair in suite.pairs.values() for kind in pair.experiments.values()}
    assert kinds == set(EXPERIMENTS.values()) - {Imported}, "for which somebody's ticket is needed"
    families = {pair.model.info.family for pair in suite.pairs.values()}
    assert families == {model.family for model in MODELS.values()}


def without_masks(plan: Plan) -> Plan:
    """The tasks that rest on no mask: where nothing is computed, none has a survivor."""
    rest, on_masks = Plan(plan.suite), set()
    for key, task in plan.tasks.items():
        if isinstance(task.spec, MaskSpec) or any(needed.key in on_masks for needed in task.inputs):
            on_masks.add(key)
        else:
            rest.add(task, "without masks", plan.cells[key])
    return rest


@pytest.mark.fake_cuda("guard")
def test_two_workers_on_two_gpus_train_every_family_and_touch_no_device_memory(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each tensor has memory of its own, which holds zeros until something is copied there, and is gone after its end.
    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
    plan, store = without_masks(make_plan(suite)), store_of(tmp_path / "store")
    outcome = run_plan(plan, Settings(store.root, device=Device("cuda")), num_workers=2)
    assert outcome.failed == {}
    assert sorted(outcome.ran) == sorted(plan.tasks)


def run_all(suite: Suite, store: Store) -> Plan:
    """Run a suite on the GPU in this process, with what its results add to its plan."""
    plan = make_plan(suite)
    while True:
        outcome = run_plan(plan, Settings(store.root, device=Device("cuda")), num_workers=0)
        assert outcome.failed == {}
        grown = make_plan(suite, result_of=store.result)
        if grown.tasks.keys() == plan.tasks.keys():
            return plan
        plan = grown


@pytest.mark.fake_cuda("sim")
def test_every_experiment_and_family_has_the_results_of_the_cpu(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu, on_cpu = store_of(tmp_path / "gpu"), store_of(tmp_path / "cpu")
    plan = run_all(suite, on_gpu)
    with monkeypatch.context() as started:  # a worker without the stand-in
        for variable in ("LD_PRELOAD", "FAKE_CUDA"):
            started.delenv(variable)
        outcome = run_plan(plan, Settings(on_cpu.root, device=Device("cpu")), num_workers=1)
    assert outcome.failed == {}
    # What results decide (the steps that an onset's bisection looks at, what a control is matched to) is the same.
    assert make_plan(suite, result_of=on_cpu.result).tasks.keys() == plan.tasks.keys()
    for key in plan.tasks:
        found, expected = on_gpu.result(key), on_cpu.result(key)
        assert found and expected
        assert found["environment"]["device"] != expected["environment"]["device"]
        assert found["metrics"].keys() == expected["metrics"].keys()
        for name, value in expected["metrics"].items():
            assert math.isclose(found["metrics"][name], value, rel_tol=0.02, abs_tol=0.02), (key, name)


RESUMED = """\
title: resumed
replicates: 1
pairs:
  lenet:
    model: {name: lenet-300-100, width: 4}
    data: {name: fashion-mnist-10k, num_train: 40, num_test: 20}
    pruning: {rate: 0.36, rates: {head: 0.18}}
    recipe: {steps: 6ep, batch_size: 8, optimizer: {name: adamw, lr: 0.01}, augment: {crop: 2}}
    arms: {adamw: {}, sgd: {recipe: {optimizer: {name: sgd, lr: 0.05, momentum: 0.9}}}}
    experiments: {imp: {levels: 1, rewind: 1ep}}
"""


class Killer(Watcher):
    """Kills the workers as soon as one of them has a training with a checkpoint."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.in_training = ""

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        if not self.in_training and (self.store.folder(key) / CHECKPOINT).exists():
            self.in_training = key
            for process in multiprocessing.active_children():
                process.kill()


@pytest.mark.fake_cuda("sim")
def test_a_suite_whose_workers_are_killed_in_training_ends_in_the_bits_of_one_that_is_left_alone(
    tmp_path: Path,
) -> None:
    suite = suite_of(RESUMED, tmp_path)
    plan, straight, killed = make_plan(suite), store_of(tmp_path / "straight"), store_of(tmp_path / "killed")
    assert run_plan(plan, Settings(straight.root, device=Device("cuda")), num_workers=0).failed == {}
    settings, killer = Settings(killed.root, device=Device("cuda"), checkpoint_every=0), Killer(killed)
    outcome = run_plan(plan, settings, num_workers=2, watcher=killer)
    assert killer.in_training in outcome.failed
    assert (killed.folder(killer.in_training) / CHECKPOINT).exists()
    assert run_plan(plan, settings, num_workers=2, retry_failed=True).failed == {}
    for key in plan.tasks:
        found, expected = killed.result(key), straight.result(key)
        assert found and expected
        assert (found["artefacts"], found["metrics"]) == (expected["artefacts"], expected["metrics"])
