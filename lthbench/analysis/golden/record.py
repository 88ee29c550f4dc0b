"""The part of results that is recorded as golden: digests, a few metrics, and the task in words."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lthbench.analysis.golden.files import Environment, Recorded, decisive
from lthbench.registry import identities
from lthbench.suite.plan import Plan, describe, make_plan
from lthbench.tasks.spec import Task, TrainSpec
from lthbench.tasks.store import Store

# The recorded numbers. The first epoch of a training shows the data path before rounding errors have grown.
METRICS = (
    "first_epoch_loss", "last_epoch_loss", "test_loss", "test_accuracy", "untrained_test_accuracy", "distance",
    "density", "distance_kept", "test_barrier", "train_barrier",
    # These give the spread over replicates of what claims compare (spreads.py).
    "train_accuracy", "validation_accuracy", "distance_relative", "distance_angle", "validation_barrier",
)  # fmt: skip


def task_names(plan: Plan) -> dict[str, str]:
    """Key -> the task in words: pair, arm, replicate, and what it is."""
    words: dict[str, str] = {}
    for placed in plan.measurements:
        measurement = placed.measurement
        level = f" of level {measurement.level}" if measurement.level is not None else ""
        step = f" from step {measurement.step}" if measurement.step else ""
        words.setdefault(measurement.task.key, f"{measurement.variant}{level}{step}")
    cells = plan.cells
    return {
        key: f"{cells[key].pair} {cells[key].arm} {cells[key].replicate}: {words.get(key) or describe(task)}"
        for key, task in plan.tasks.items()
    }


def chosen_tasks(plan: Plan) -> set[str]:
    """The tasks that experiments chose by results: those that are not planned without results."""
    return set(plan.tasks) - set(make_plan(plan.suite).tasks)


def recorded(key: str, name: str, result: dict[str, Any], *, chosen: bool = False) -> Recorded:
    """The recorded part of a task's result."""
    numbers = dict(result["metrics"])
    if result.get("epoch_losses"):
        numbers["first_epoch_loss"], numbers["last_epoch_loss"] = result["epoch_losses"][0], result["epoch_losses"][-1]
    return Recorded(
        key=key,
        task=name,
        status=result["status"],
        chosen=chosen,
        digests={what: digest[:16] for what, digest in result.get("digests", {}).items()},
        metrics={metric: numbers[metric] for metric in METRICS if math.isfinite(numbers.get(metric, math.nan))},
    )


def tasks_of(plan: Plan, pairs: Collection[str]) -> dict[str, Task]:
    """Key -> task, for the tasks of some pairs."""
    return {key: task for key, task in plan.tasks.items() if plan.cells[key].pair in pairs}


def plugins_of(tasks: Iterable[Task]) -> dict[str, dict[str, str]]:
    """The plugins that tasks use, by name: version and digest."""
    return identities(used for task in tasks for used in task.spec.names())


def policy_of(tasks: Iterable[Task], environment: Environment) -> str:
    """The digest of what chose the kernels of the blocked engine, where it trained; older results lack it."""
    blocked = any(isinstance(task.spec, TrainSpec) and task.spec.recipe.engine == "blocked" for task in tasks)
    return str(environment.get("policy", "")) if blocked else ""


def results_of(plan: Plan, store: Store) -> dict[str, dict[str, Any]]:
    """Key -> result, for the finished tasks of a plan in its order."""
    found = {key: store.result(key) for key in store.done({key: plan.kept(key) for key in plan.tasks})}
    return {key: result for key, result in found.items() if result is not None}


def environments_of(results: Mapping[str, dict[str, Any]]) -> list[Environment]:
    """The environments, distinct in what decides bits, that results come from."""
    distinct = {json.dumps(decisive(r["environment"])): r["environment"] for r in results.values()}
    return list(distinct.values())
