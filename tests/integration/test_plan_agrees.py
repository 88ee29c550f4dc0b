"""What `plan` says beforehand is what `run` then does: tasks, trainings, and every image that a network sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run_here
from torch import nn

from lthbench.data.images import ImageSet
from lthbench.models.build import build
from lthbench.models.spec import MODELS, ModelSpec
from lthbench.suite.cost import plan_cost
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.subset import Subset
from lthbench.tasks import interpolate
from lthbench.tasks.store import Store
from lthbench.training.loop import Trainer

TOUR = Path(__file__).parents[2] / "suites" / "tour.yaml"
REDUCED = f"""\
title: every experiment on a few images
replicates: 1
include: [{TOUR}]
pairs:
  lenet-fashion-10k:
    model: {{width: 10}}
    data: {{validation: 70, num_train: 330}}
    recipe: {{drop_last: true}}
    experiments:
      frozen-features: {{levels: [2], normalisation: [estimated, batch, affine], arms: [early]}}
      few-shot: {{steps: 7it, per_class: [3], levels: [1], arms: [early]}}
      level-barriers: {{levels: [1], points: 3, statistics: [interpolate, recompute], num_train: 200, arms: [early]}}
      stability: {{num_train: 200}}
      sparse-stability: {{num_train: 200}}
      rewound-stability: {{num_train: 200}}
      onset: {{num_train: 200}}
"""


EXPERIMENTS = ("imp", "controls", "stability", "frozen-features", "few-shot", "level-barriers")


class Seen(Counter[str]):
    """Counts of what networks are shown while it is installed."""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        batch, training_batch = ImageSet.batch, ImageSet.training_batch
        begin, one_step, evaluate_linear_path = Trainer.__init__, Trainer.one_step, interpolate.evaluate_linear_path

        def counted(what: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def counting(images: ImageSet, index: torch.Tensor, *rest: Any) -> Any:
                self[what] += len(index)
                return call(images, index, *rest)

            return counting

        def init(trainer: Trainer, *rest: Any, **options: Any) -> None:
            before = self["forward"]
            begin(trainer, *rest, **options)
            self["forward"] = before  # its example of a batch is shown to no network

        def step(trainer: Trainer) -> None:
            self["steps"] += 1
            one_step(trainer)

        def line(model: nn.Module, a: Any, b: Any, alphas: torch.Tensor, *rest: Any, **options: Any) -> Any:
            before = self["forward"]
            result = evaluate_linear_path(model, a, b, alphas, *rest, **options)
            self["on lines"] += (self["forward"] - before) * len(alphas)
            self["forward"] = before
            return result

        monkeypatch.setattr(ImageSet, "batch", counted("forward", batch))
        monkeypatch.setattr(ImageSet, "training_batch", counted("trained", training_batch))
        monkeypatch.setattr(Trainer, "__init__", init)
        monkeypatch.setattr(Trainer, "one_step", step)
        monkeypatch.setattr(interpolate, "evaluate_linear_path", line)


def test_a_run_of_every_experiment_does_what_was_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suite.yaml").write_text(REDUCED)
    plan = make_plan(load_suite(tmp_path / "suite.yaml"), Subset(EXPERIMENTS, ("lenet-fashion-10k",), levels=2))
    store, seen = Store(tmp_path / "store"), Seen()
    before = {line.name: line for line in plan_cost(plan, store)}
    seen.install(monkeypatch)
    run_here(plan, store.root)
    results = [store.result(key) for key in plan.tasks]
    assert all(result is not None and result["status"] == "ok" for result in results), "none ends early"
    assert len(list(store.root.glob("tasks/*/*/result.json"))) == before["all"].tasks
    weights = {path.parent for path in store.root.glob("tasks/*/*/weights.safetensors")}
    assert len(weights) == before["all"].trainings == before["train"].tasks
    disk = sum(path.stat().st_size for path in store.root.glob("tasks/*/*/*.safetensors"))
    assert disk == pytest.approx(before["all"].disk_bytes, rel=0.1), "but for the files' headers"
    planned = Counter[str]()
    for work in plan.work.values():
        planned.update(
            {"steps": work.steps, "trained": work.trained, "forward": work.evaluated, "on lines": work.path_images}
        )
    assert planned == seen
    assert before["all"].image_passes == pytest.approx(seen["trained"] + (seen["forward"] + seen["on lines"]) / 3)
    after = {line.name: line for line in plan_cost(plan, store)}
    assert after["all"].done == after["all"].tasks


@pytest.mark.parametrize("name", MODELS)
def test_which_models_normalise_by_batches_is_known_without_building_them(name: str) -> None:
    shape = (3, 224, 224) if name == "swin-t" else (3, 64, 64)
    with torch.device("meta"):
        network = build(ModelSpec(name=name), shape, 10)
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == (MODELS[name].norm_pixels is not None)
