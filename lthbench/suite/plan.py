"""`Plan`: the task graph of a suite, each task once, with what must be kept and what it costs."""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from lthbench.experiments import EXPERIMENTS, Cell, Measurement
from lthbench.experiments.cell import Result
from lthbench.suite.claim_tests import variant_pattern
from lthbench.suite.relations import one_value_normalised
from lthbench.suite.schema import Pair, Suite
from lthbench.suite.subset import WHOLE, Subset
from lthbench.suite.work import Work, work_of
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.spec import MaskSpec, Task, TrainSpec

MAX_TASKS = 500_000


@dataclass(frozen=True)
class PlannedMeasurement:
    """A measurement with its cell and experiment."""

    cell: Cell
    experiment: str
    measurement: Measurement


@dataclass
class Plan:
    """All tasks of a suite, inputs before the tasks that need them.

    Attributes:
        tasks: key -> task.
        keep: key of a training -> the steps whose weights other tasks need.
        users: key -> the experiments that need the task.
        cells: key -> the first cell that needs the task.
    """

    suite: Suite
    measurements: list[PlannedMeasurement] = field(default_factory=list)
    tasks: dict[str, Task] = field(default_factory=dict)
    keep: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    users: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    cells: dict[str, Cell] = field(default_factory=dict)

    def kept(self, key: str) -> frozenset[int]:
        """The steps that a training must keep."""
        return frozenset(self.keep.get(key, ()))

    @cached_property
    def work(self) -> dict[str, Work]:
        """Key -> the images that the task goes through."""
        return {key: work_of(task) for key, task in self.tasks.items()}

    @cached_property
    def cost(self) -> dict[str, float]:
        """Key -> cost in image passes."""
        return {key: work.image_passes for key, work in self.work.items()}

    @cached_property
    def depth(self) -> dict[str, float]:
        """Key -> cost of the longest chain that begins with the task; longest first is the order to finish soonest."""
        depth: dict[str, float] = defaultdict(float)
        for key in reversed(self.tasks):
            depth[key] += self.cost[key]
            for task in self.tasks[key].inputs:
                depth[task.key] = max(depth[task.key], depth[key])
        return dict(depth)

    def label(self, key: str) -> str:
        """The task in words: pair, arm, replicate, work."""
        cell = self.cells[key]
        return f"{cell.pair} {cell.arm} {cell.replicate_name}: {describe(self.tasks[key])}"

    def add(self, task: Task, experiment: str, cell: Cell) -> None:
        """Add a task and all that it needs, for an experiment of a cell."""
        pending = [(task, False)]
        while pending:
            task, inputs_done = pending.pop()
            if inputs_done:
                self.tasks.setdefault(task.key, task)
                continue
            if experiment in self.users[task.key]:
                continue
            self.users[task.key].add(experiment)
            self.cells.setdefault(task.key, cell)
            for ref in task.weights_needed():
                if ref.step is not None:
                    self.keep[ref.task].add(ref.step)
            pending.append((task, True))
            pending += [(t, False) for t in task.inputs]


def make_plan(suite: Suite, part: Subset = WHOLE, result_of: Callable[[str], Result | None] = lambda key: None) -> Plan:
    """The plan of a suite, or of a part of it; selection replicates have only what choices depend on.

    Args:
        result_of: key -> its result in the store. Experiments that choose tasks by results plan as far as results are
            known; a later plan has more.

    Raises:
        SuiteError: the suite has no such part, or an experiment asks for what the recipe cannot give.
    """
    part.check(suite)
    plan = Plan(suite)
    num_replicates = suite.selection_replicates + (part.replicates or suite.replicates)
    replicates: set[int] = set()
    for cell, label, measurement in _measurements(suite, part, lambda task: result_of(task.key)):
        plan.measurements.append(PlannedMeasurement(cell, label, measurement))
        for task in (measurement.task, *measurement.others):
            plan.add(task, label, cell)
        replicates.add(cell.replicate)
        # Replicates are outermost and share no task: while the first is planned, each will have as many at least.
        if (expected := len(plan.tasks) * (num_replicates if len(replicates) == 1 else 1)) > MAX_TASKS:
            raise SuiteError(_too_many(expected, num_replicates))
    for key, task in plan.tasks.items():  # few images, other data and varied recipes as well
        spec = task.spec
        if not isinstance(spec, TrainSpec) or spec.probe not in (None, "affine"):
            continue
        if alone := one_value_normalised(spec.model, spec.data, spec.recipe, spec.num_images):
            raise SuiteError(f"{plan.label(key)}, for {', '.join(sorted(plan.users[key]))}: {alone}")
    return plan


def _too_many(number: int, num_replicates: int) -> str:
    return (
        f"at least {number:,} tasks (replicates: {num_replicates:,}) are too many for a plan, which has {MAX_TASKS:,} "
        "at most; give fewer replicates, levels, points or children"
    )


def _measurements(
    suite: Suite, part: Subset, result_of: Callable[[Task], Result | None]
) -> Iterator[tuple[Cell, str, Measurement]]:
    for cell in filter(part.has_cell, suite.cells(result_of, part.replicates)):
        found = _readings_of(suite, part, cell)
        if cell.is_selection:
            listed = list(found)
            wanted = candidates(suite, cell, listed)
            found = ((label, r) for label, r in listed if r.selects or (r.level and (label, r.variant) in wanted))
        for label, measurement in found:
            yield cell, label, measurement


def _readings_of(suite: Suite, part: Subset, cell: Cell) -> Iterator[tuple[str, Measurement]]:
    for label, experiment in suite.pairs[cell.pair].experiments.items():
        if not part.has_experiment(label, experiment, cell):
            continue
        try:
            for measurement in filter(part.has_measurement, experiment.measurements(cell)):
                yield label, measurement
        except ValueError as error:
            raise SuiteError(f"pairs.{cell.pair}.arms.{cell.arm}, experiment {label}: {error}") from error


def candidates(suite: Suite, cell: Cell, measurements: Iterable[tuple[str, Measurement]]) -> set[tuple[str, str]]:
    """The experiments and variants among which claims choose by a cell's measurements; a single one needs no choice."""
    found: set[tuple[str, str]] = set()
    kinds = kinds_of(suite.pairs[cell.pair])
    for claim in suite.claims.values():
        if claim.choose is None or not any(fnmatch.fnmatch(cell.pair, pattern) for pattern in claim.pairs):
            continue
        among = claim.choose.among
        if among.arm not in ("*", cell.arm, cell.arms[cell.arm].stability_class):
            continue
        labels = {label for kind in claim.experiments for label in kinds.get(kind, ())}
        pattern = variant_pattern(among.variant)
        named = {(label, r.variant) for label, r in measurements if label in labels and pattern.fullmatch(r.variant)}
        found |= named if len({variant for _, variant in named}) > 1 else set()
    return found


def kinds_of(pair: Pair) -> dict[str, list[str]]:
    """Kind of experiment -> the names that a pair's experiments of that kind have."""
    kinds = {cls: kind for kind, cls in EXPERIMENTS.items()}
    found: dict[str, list[str]] = defaultdict(list)
    for label, experiment in pair.experiments.items():
        found[kinds[type(experiment)]].append(label)
    return dict(found)


def describe(task: Task) -> str:
    """A task in a few words, for progress displays."""
    spec = task.spec
    if isinstance(spec, TrainSpec):
        levels = [t.spec.level for t in task.inputs if isinstance(t.spec, MaskSpec)]
        return f"train at level {levels[0]}" if levels else "train dense"
    if isinstance(spec, MaskSpec):
        return f"{spec.criterion} mask of level {spec.level}"
    return f"path of {spec.points} points"


def longest_chain(plan: Plan, work: Mapping[str, float]) -> float:
    """The work of the longest chain of tasks that wait for each other.

    Args:
        work: key -> of a task; those without count nothing.
    """
    until: dict[str, float] = {}
    for key in plan.tasks:  # inputs come before the tasks that need them
        if key in work:
            until[key] = work[key] + max((until.get(task.key, 0.0) for task in plan.tasks[key].inputs), default=0.0)
    return max(until.values(), default=0.0)
