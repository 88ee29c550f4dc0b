"""A store whose every task has a made-up result at once, so that whole suites can be read without being run."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lthbench.data.spec import num_train_images
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.schema import Suite
from lthbench.tasks.atomic import write_json
from lthbench.tasks.paths import RESULT, SPEC, weights_file
from lthbench.tasks.result import Artefact, seal
from lthbench.tasks.spec import InterpolateSpec, MaskSpec, Task, TrainSpec
from lthbench.tasks.store import Store


class SyntheticStore(Store):
    """Results that are functions of the tasks' keys: the same in every run, and different for every task."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere/<store>"))
        self.tasks: dict[str, Task] = {}

    def plan(self, suite: Suite) -> Plan:
        """The plan of a suite when all of it is done, experiments that choose tasks by results included."""
        while True:
            plan = make_plan(suite, result_of=self.result)
            if plan.tasks.keys() <= self.tasks.keys():
                return plan
            self.tasks |= plan.tasks

    def result(self, key: str) -> dict[str, Any] | None:
        task = self.tasks.get(key)
        return None if task is None else made_up(task)


ENVIRONMENT = {"lthbench": "0.1.0", "torch": "2.14.1", "device": "<cpu>", "threads": 1}


def put_result(store: Store, task: Task, kept: Iterable[int] = (), **fields: Any) -> None:
    """Write a result into a store as a worker does, with empty files as the weights of kept steps."""
    folder = store.folder(task.key)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).write_text(task.canonical)
    names = [weights_file(step) for step in kept]
    for name in names:
        (folder / name).touch()
    result = {
        "key": task.key,
        "status": "ok",
        "metrics": {},
        "artefacts": {name: Artefact.of(b"").model_dump() for name in names},
        "inputs": {},
        "seconds": 2.0,
        "finished": "2026-01-02T03:04:05+00:00",
        "environment": ENVIRONMENT,
    }
    write_json(folder / RESULT, seal(result | fields))


def made_up(task: Task) -> dict[str, Any]:
    rng = random.Random(task.key)
    spec = task.spec
    level = next((t.spec.level for t in task.inputs if isinstance(t.spec, MaskSpec)), 0)
    result: dict[str, Any] = {
        "status": "ok",
        "reason": None,
        "metrics": {"density": 0.8**level, "empty_layers": 0},
        "seconds": 1.5,
        "finished": "2026-01-02T03:04:05+00:00",
        "environment": ENVIRONMENT,
    }
    if not isinstance(spec, InterpolateSpec):
        result["metrics"]["empty_layers"] = 0
    if isinstance(spec, TrainSpec):
        reached = 0.9 - 0.01 * level + rng.gauss(0, 0.005)
        distance = 2 + spec.recipe.optimizer.lr + rng.gauss(0, 0.05)
        result["metrics"] |= {f"{split}_accuracy": reached for split in ("train", "validation", "test")}
        result["metrics"] |= {f"{split}_loss": 1 - reached for split in ("train", "validation", "test")}
        names = ("distance", "distance_relative", "distance_rms", "distance_angle", "path_length")
        result["metrics"] |= {name + end: distance for name in names for end in ("", "_from_init")}
        if spec.probe:
            result["metrics"] |= {"untrained_test_accuracy": 0.1, "penalty": 0.01}
        per_epoch = spec.recipe.steps_per_epoch(num_train_images(spec.data))
        epochs = max(1, spec.recipe.steps.count(per_epoch) // per_epoch)
        result["epoch_losses"] = [2 / (1 + epoch) for epoch in range(epochs)]
        result["epoch_distances"] = [distance * (epoch + 1) / epochs for epoch in range(epochs)]
        layers = ("first.weight", "second.weight", "head.weight")
        result["layer_distance"] = {name: distance * (1 + rng.random()) for name in layers}
        result["layer_overlap"] = dict.fromkeys(layers, 0.4)
        result["metrics"] |= {"forgetting_events": 3.0, "forgettable_share": 0.2, "never_learned_share": 0.1}
        result["validation_curve"] = [[step, reached * step / per_epoch] for step in (1, per_epoch // 2, per_epoch)]
        result["steps"] = [spec.begin, spec.recipe.steps.count(per_epoch)]
    elif isinstance(spec, InterpolateSpec):
        height = max(0.0, rng.gauss(0.03, 0.02))
        alphas = [i / (spec.points - 1) for i in range(spec.points)]
        curve = [0.1 + 4 * height * a * (1 - a) for a in alphas]
        result["alphas"] = alphas
        result["curves"] = {
            f"{split}_{what}": curve for split in ("train", "test", "validation") for what in ("error", "loss")
        }
        barriers = (
            f"{split}{kind}" for split in ("test", "train", "validation") for kind in ("_barrier", "_loss_barrier")
        )
        result["metrics"] |= dict.fromkeys(barriers, height) | {"distance": 3.0}
    else:
        result["metrics"] |= {
            f"{name}_{part}": rng.random() for name in ("distance", "distance_relative") for part in ("kept", "pruned")
        }
        result["metrics"]["density"] = 0.8**spec.level
    return result
