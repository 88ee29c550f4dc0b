"""`MeasuredPoint`: one measurement of a suite and its outcome: numbers, a divergence, or nothing yet."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lthbench.data.spec import num_train_images
from lthbench.experiments import Measurement
from lthbench.experiments.cell import Result, is_selection
from lthbench.suite.plan import Plan, kinds_of
from lthbench.tasks.spec import InterpolateSpec, Task, TrainSpec
from lthbench.tasks.store import Store

Status = Literal["ok", "diverged", "refused", "at chance", "missing"]


@dataclass(frozen=True)
class Subject:
    """The network, or the path between two networks, that numbers are of.

    Attributes:
        experiment: its name in the suite.
        density: fraction of the prunable weights that survive; None for the path between two networks.
        step: the iteration of rewinding or spawning.
    """

    pair: str
    experiment: str
    arm: str
    replicate: int
    variant: str
    level: int | None
    density: float | None
    step: int | None

    @property
    def is_selection(self) -> bool:
        """Whether it is of a replicate that only chooses, and so in no test and no summary."""
        return is_selection(self.replicate)


@dataclass(frozen=True)
class MeasuredPoint(Subject):
    """One measurement of a cell.

    Attributes:
        status: `missing` where a task of it is not done; else the first of its results that is not `ok`, if any;
            `at chance` where it, or what it was pruned or spawned from, is a dense network that learned nothing.
        numbers: metric -> value; accuracies, errors and barriers are fractions, losses nats.
        key: the task that measured it.
        epoch, share: the step in epochs and as a share of the length of its training, by which recipes of other
            batches and lengths are compared.
    """

    status: Status
    numbers: Mapping[str, float]
    key: str
    epoch: float | None = None
    share: float | None = None


def points(plan: Plan, store: Store) -> Iterator[MeasuredPoint]:
    """Every measurement of a plan, in the plan's order."""
    learned: dict[tuple[str, int], bool] = {}
    for placed in plan.measurements:
        measurement, cell = placed.measurement, placed.cell
        tasks = (measurement.task, *measurement.others)
        results = [store.result(task.key) for task in tasks]
        done = [result for result in results if result is not None]
        is_whole = len(done) == len(results)
        status: Status = "missing"
        if is_whole:
            status = next((r["status"] for r in done if r["status"] != "ok"), "ok")
            length = _length(measurement.task)
            if status == "ok" and not all(_learned(task, store, length, learned) for task in tasks):
                status = "at chance"
        epoch, share = (None, None) if measurement.step is None else moment(measurement.step, measurement.task)
        yield MeasuredPoint(
            pair=cell.pair,
            experiment=placed.experiment,
            arm=cell.arm,
            replicate=cell.replicate,
            variant=measurement.variant,
            level=measurement.level,
            density=done[0]["metrics"].get("density") if is_whole else None,
            step=measurement.step,
            status=status,
            numbers=measurement.numbers(done) if is_whole else {},
            key=measurement.task.key,
            epoch=epoch,
            share=share,
        )


def _learned(task: Task, store: Store, length: int, known: dict[tuple[str, int], bool]) -> bool:
    """Whether no dense network that a task is made from ended at chance; of the two ends of a path, not both: that one
    of them did is what the path measures. Nor does a shorter training count, as that of a mask search of a small
    budget: how much the budget can shrink is what is measured there.

    Args:
        length: iterations of the training that is measured.
        known: key and length -> the answer for other tasks, which is added to.
    """
    place = task.key, length
    if place not in known:
        of_all = any if isinstance(task.spec, InterpolateSpec) else all
        failed = ended_at_chance(task, store.result) and _length(task) >= length
        known[place] = not failed and of_all(_learned(other, store, length, known) for other in task.inputs)
    return known[place]


def _length(task: Task) -> int:
    """The iterations of a training's recipe; of a mask or a path, of the first training that it is made of."""
    steps = _steps(task)
    return steps.in_all if steps else 0


class _Steps(NamedTuple):
    """Iterations of a training's recipe."""

    per_epoch: int
    in_all: int


def _steps(task: Task) -> _Steps | None:
    """Those of a training; of a mask or a path, of the first that it is made of, and None if it is made of none."""
    spec = task.spec
    if not isinstance(spec, TrainSpec):
        return _steps(task.inputs[0]) if task.inputs else None
    per_epoch = spec.recipe.steps_per_epoch(num_train_images(spec.data))
    return _Steps(per_epoch, spec.recipe.steps.count(per_epoch))


def ended_at_chance(task: Task, result_of: Callable[[str], Result | None]) -> bool:
    """Whether a task trained a dense network on all of its images, to the end of its recipe, and it is no better on
    them than guessing among their classes: at most four standard errors above, and half of what there is to learn.

    Its weights may be finite, and masks be made from it; but they are of no trained network.
    """
    spec = task.spec
    if (
        not isinstance(spec, TrainSpec)
        or spec.mask
        or spec.probe
        or spec.per_class is not None
        or spec.stop is not None
    ):
        return False
    result = result_of(task.key)
    accuracy = None if result is None else result["metrics"].get("train_accuracy")
    chance = 1 / spec.data.num_labels
    error = math.sqrt(chance * (1 - chance) / spec.num_images)
    return accuracy is not None and accuracy <= chance + min(4 * error, (1 - chance) / 2)


def moment(step: int, task: Task) -> tuple[float, float]:
    """An iteration in epochs and as a share of the training's length; for a mask or a barrier, of the trainings it is
    made of."""
    steps = _steps(task)
    assert steps is not None, "a step is of a training"
    return step / steps.per_epoch, step / steps.in_all


def costs(plan: Plan) -> dict[tuple[str, str], float]:
    """(pair, kind of experiment) -> its cost for the most expensive arm and replicate, in dense trainings of that arm.

    The cost of selection replicates, which a suite has once, is left out.
    """
    labels = {
        (name, label): kind
        for name, pair in plan.suite.pairs.items()
        for kind, names in kinds_of(pair).items()
        for label in names
    }
    needed: dict[tuple[str, str, str, int], dict[str, Task]] = {}
    dense: dict[tuple[str, str, int], float] = {}
    for placed in plan.measurements:
        cell = placed.cell
        if cell.is_selection:
            continue
        here = cell.pair, cell.arm, cell.replicate
        dense[here] = dense.get(here) or plan.cost.get(cell.dense().key, 0.0)
        tasks = needed.setdefault((labels[cell.pair, placed.experiment], *here), {})
        _gather(placed.measurement, tasks)
    found: dict[tuple[str, str], float] = {}
    for (kind, pair, arm, replicate), tasks in needed.items():
        if price := dense[pair, arm, replicate]:
            ratio = sum(plan.cost[key] for key in tasks) / price
            found[pair, kind] = max(found.get((pair, kind), 0.0), ratio)
    return found


def replicate_cost(plan: Plan, store: Store, pair: str, experiments: Collection[str]) -> tuple[int, float | None]:
    """Trainings of one tested replicate of some experiments of a pair, and the hours that all its tasks took.

    The hours are those of the most expensive replicate that is done, in the environments in which it was run; None if
    none is done.
    """
    needed: dict[int, dict[str, Task]] = {}
    for placed in plan.measurements:
        cell = placed.cell
        if cell.pair == pair and placed.experiment in experiments and not cell.is_selection:
            tasks = needed.setdefault(cell.replicate, {})
            _gather(placed.measurement, tasks)
    trainings, hours = 0, None
    for tasks in needed.values():
        trainings = max(trainings, sum(isinstance(task.spec, TrainSpec) for task in tasks.values()))
        results = [store.result(key) for key in tasks]
        seconds = [float(result.get("seconds", 0)) for result in results if result is not None]
        if len(seconds) == len(tasks):
            hours = max(hours or 0.0, sum(seconds) / 3600)
    return trainings, hours


def _gather(measurement: Measurement, tasks: dict[str, Task]) -> None:
    """Add the tasks of a measurement, and all that these need, to those gathered so far."""
    pending = [measurement.task, *measurement.others]
    while pending:
        task = pending.pop()
        if task.key not in tasks:
            tasks[task.key] = task
            pending += task.inputs


def planned_points(plan: Plan, name: str) -> list[MeasuredPoint]:
    """The points that are or will be planned of the first replicate of a pair, and of selection replicates, without
    numbers."""
    found = [
        MeasuredPoint(name, placed.experiment, placed.cell.arm, placed.cell.replicate, r.variant, r.level, None, r.step,
              "missing", {}, r.task.key)
        for placed in plan.measurements
        if placed.cell.pair == name
        and (placed.cell.replicate == plan.suite.first_replicate or placed.cell.is_selection)
        for r in (placed.measurement,)
    ]  # fmt: skip
    pair = plan.suite.pairs[name]
    for label, experiment in pair.experiments.items():
        for variant, level in experiment.later():
            for arm in experiment.arms or pair.arms:
                found.append(
                    MeasuredPoint(name, label, arm, 0, variant, level, None, 0, "missing", {}, f"{arm}: {variant}")
                )
    return found
