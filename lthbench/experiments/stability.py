"""Stability to SGD noise: the error barrier between children spawned from one step of a training.

Frankle et al. 2020 (arXiv 1912.05671), section 2: copies of the network of step k are trained to the end with
different SGD noise; it is stable at k where the barrier between them is under 2 % of error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from lthbench.data.spec import num_train_images
from lthbench.experiments.cell import Cell, Result
from lthbench.experiments.experiment import (
    ACCURACY,
    BARRIER,
    MAX_LEVEL,
    Experiment,
    Level,
    Measurement,
    PrunedLevels,
    points_beyond,
)
from lthbench.experiments.imp import rewind_faults
from lthbench.fault import Fault
from lthbench.tasks.spec import Task
from lthbench.training.recipe import SGD
from lthbench.training.steps import Steps

# SGD noises of children beside the ticket itself, whose noise is its level; levels never get so high.
FIRST_CHILD_NOISE = MAX_LEVEL + 1
EARLY = 0.05
# The metric that decides an onset, and the proxies that might replace the search for it.
FOUND = (
    *(f"{name}{unit}" for name in ("onset_above", "onset") for unit in ("", "_epoch", "_share")),
    *("onset_found", "onset_monotone", "noise_scale", "early_loss"),
)
# The longest grid that is verified by default: each of its steps costs some trainings.
MAX_VERIFIED = 9

Statistics = Literal["interpolate", "recompute"]


def under(variant: str, statistics: Statistics) -> str:
    """The variant of a barrier, or of what is found by barriers, under a rule of statistics."""
    return variant if statistics == "interpolate" else f"{variant}, recomputed statistics"


def under_each(variant: str) -> tuple[str, ...]:
    """The variant under each rule of statistics."""
    return tuple(under(variant, statistics) for statistics in get_args(Statistics))


class _Lines(Experiment):
    """How the paths between networks are evaluated.

    Attributes:
        children: how many copies are trained from each spawn; every pair of them gives a barrier.
        points: evenly spaced alphas, ends included.
        statistics: normalisation statistics along the path: interpolated, recomputed from train images, or both,
            separately; variants with recomputed ones say so. Without batch normalisation both are the same task.
        num_train: train images over which the train error is taken; all of them when absent.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "test_barrier", "train_barrier")

    children: Annotated[int, Field(ge=2, le=100)] = 2
    points: Annotated[int, Field(ge=3, le=10_000)] = 30
    statistics: Annotated[tuple[Statistics, ...], Field(min_length=1)] = ("interpolate",)
    num_train: Annotated[int, Field(ge=1)] | None = None

    def faults(self, cell: Cell) -> Iterator[Fault]:
        if (self.num_train or 0) > (images := num_train_images(cell.data)):
            yield Fault(("num_train",), f"{self.num_train:,} images are more than the {images:,} that are trained on")

    def family(self, cell: Cell, step: int, level: int = 0) -> list[Task]:
        """The children of a spawn: the network's own training, if it starts there, then others."""
        mask = cell.mask(level, step)
        noises = [level, *(FIRST_CHILD_NOISE + n for n in range(1, self.children))]
        return [cell.train(start=cell.spawn(step), mask=mask, noise=noise) for noise in noises]

    def lines(self, cell: Cell, tasks: Sequence[Task], statistics: Statistics) -> list[Task]:
        """The paths between every two of some trainings."""
        return [
            cell.line(a, b, points=self.points, statistics=statistics, num_train=self.num_train)
            for a, b in combinations(tasks, 2)
        ]

    def path_measurements(
        self, cell: Cell, tasks: Sequence[Task], variant: str, level: int, step: int
    ) -> Iterator[Measurement]:
        """The measurements of the paths between every two of some trainings, for each rule of statistics."""
        for statistics in self.statistics:
            for line in self.lines(cell, tasks, statistics):
                yield Measurement(line, under(variant, statistics), BARRIER, level=level, step=step)


class Stability(_Lines):
    """Barriers between all pairs of `children` spawned at each of the steps `spawns`.

    Measurements: `child`, with accuracies; `barrier`, with the barriers of error and loss on test, train and validation
    and the distances of the ends.

    Attributes:
        spawns: the steps k.
        levels: the pruning levels of the networks; 0 is the dense one. A pruned one is rewound to its spawn.
    """

    variants: ClassVar = ("child", *under_each("barrier"))
    metrics: ClassVar = ACCURACY + BARRIER
    headlines: ClassVar = (("barrier", "test_barrier", "error barrier between two trainings"),)

    spawns: Annotated[tuple[Steps, ...], Field(min_length=1)]
    levels: Annotated[tuple[Level, ...], Field(min_length=1)] = (0,)

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        for level in self.levels:
            for spawn in self.spawns:
                step = cell.iterations(spawn)
                children = self.family(cell, step, level)
                for child in children:
                    yield Measurement(child, "child", ACCURACY, level=level, step=step)
                yield from self.path_measurements(cell, children, "barrier", level, step)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from super().faults(cell)
        recipes = (cell.recipe, cell.search) if any(self.levels) else (cell.recipe,)
        yield from points_beyond("spawns", self.spawns, cell, recipes)


class LevelBarriers(_Lines):
    """Barriers from the trained ticket of a level to that of the previous level, and to the dense network.

    Measurements: `barrier to the level before` (Paul et al. 2023, arXiv 2210.03044) and `barrier to the dense network`,
    as those of stability; `distance_shared` of the latter is how far the sparse solution ends from the masked dense
    one (Frankle et al. 2019, arXiv 1903.01611).

    Attributes:
        levels: the pruning levels whose tickets are compared.
        rewind: the step that tickets are rewound to.
    """

    variants: ClassVar = (*under_each("barrier to the level before"), *under_each("barrier to the dense network"))
    metrics: ClassVar = BARRIER

    levels: PrunedLevels
    rewind: Steps = Steps()

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        rewind = cell.iterations(self.rewind)
        for level in self.levels:
            ticket = cell.ticket(level, rewind)
            for other, variant in ((cell.ticket(level - 1, rewind), "level before"), (cell.dense(), "dense network")):
                yield from self.path_measurements(cell, [other, ticket], f"barrier to the {variant}", level, rewind)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from super().faults(cell)
        yield from rewind_faults(self.rewind, cell)


class Onset(_Lines):
    """The onset k*: the first step of a grid from which on children are stable, by bisection; and its cheap proxies.

    A step is stable if its children have a mean validation barrier under the threshold. Bisection assumes that
    stability is monotone in k. With `verify` all steps of the grid after the one that it finds are measured too; if one
    of them is unstable, stability is not monotone and no onset is reported. The onset lies above the last unstable step
    measured, `onset_above` (-1 where there is none), and at or below the first stable one, `onset`.

    Measurements: `barrier`, of the steps that are measured; `onset`, with `onset_found` (1 where there is an onset; 0
    where no step is stable, or stability is not monotone), `onset_monotone` (1 or 0, where that was verified),
    `onset_above` and `onset` in iterations, each also in epochs (`_epoch`) and as a share of the length of training
    (`_share`), by which alone recipes are compared; and the cheap proxies that might replace the procedure, all of one
    training: `distance_relative`, `noise_scale`, `early_loss`. Until all is measured there is no `onset`.

    Attributes:
        grid: the steps, ascending; shares, as `2%`, mean the same for recipes of other batches and lengths.
        threshold: the error barrier under which a network is stable (2 % in the literature).
        verify: whether the steps after the onset are measured; unless given, those of grids of up to nine are.
    """

    shown: ClassVar[tuple[str, ...]] = ("onset_above_share", "onset_share", "onset", "onset_monotone", "noise_scale")
    variants: ClassVar = (*under_each("barrier"), *under_each("onset"))
    metrics: ClassVar = (*BARRIER, "distance_relative", *FOUND)
    headlines: ClassVar = (("onset", "onset_share", "onset of stability"),)

    grid: Annotated[tuple[Steps, ...], Field(min_length=2)]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02
    verify: bool | None = None

    @property
    def verifies(self) -> bool:
        return len(self.grid) <= MAX_VERIFIED if self.verify is None else self.verify

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        arm = cell.arms.get(cell.arm)
        for statistics in self.statistics:
            # Measured onsets, by the first of the rules, say whether an arm is what its class says.
            selects = arm is not None and arm.stability_class is not None and statistics == "interpolate"
            asked, found = self.bisect(cell, statistics)
            for step, lines in asked.items():
                for line in lines:
                    variant = under("barrier", statistics)
                    yield Measurement(line, variant, BARRIER, level=0, step=step, selects=selects)
            if found is not None:
                yield Measurement(
                    cell.dense(),
                    under("onset", statistics),
                    ("distance_relative",),
                    level=0,
                    compute=self.with_proxies(cell, found),
                )

    def later(self) -> Iterator[tuple[str, int]]:
        for statistics in self.statistics:
            yield under("onset", statistics), 0

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from super().faults(cell)
        if not cell.data.validation:
            yield Fault((), "an onset is measured by validation barriers; give the pair's data a `validation`")
        yield from self.grid_faults(cell)

    def grid_faults(self, cell: Cell) -> Iterator[Fault]:
        """Points of the grid that do not ascend, or lie at or beyond the end of the cell's training."""
        for position, (point, following) in enumerate(pairwise(self.grid)):
            if cell.iterations(following) <= cell.iterations(point):
                yield Fault(("grid", position + 1), f"{following} does not come after {point}; the grid ascends")
                return
        yield from points_beyond("grid", self.grid, cell, (cell.recipe,))

    def bisect(self, cell: Cell, statistics: Statistics) -> tuple[dict[int, list[Task]], dict[str, float] | None]:
        """The paths of each step that is needed, as far as known, and the numbers of the onset once they are known."""
        steps = [cell.iterations(step) for step in self.grid]
        asked: dict[int, list[Task]] = {}
        stable: dict[int, bool] = {}  # by position in the grid

        def measure(positions: Sequence[int]) -> bool:
            """Whether all of these are known."""
            for at in positions:
                lines = asked[steps[at]] = self.lines(cell, self.family(cell, steps[at]), statistics)
                results = [result for line in lines if (result := cell.result_of(line)) is not None]
                if len(results) == len(lines):
                    stable[at] = is_stable(results, self.threshold)
            return all(at in stable for at in positions)

        lowest, highest = -1, len(steps)  # positions known (or taken) to be unstable, stable
        while highest - lowest > 1:
            middle = (lowest + highest) // 2
            if not measure([middle]):
                return asked, None
            lowest, highest = (lowest, middle) if stable[middle] else (middle, highest)
        if self.verifies and not measure([at for at in range(highest + 1, len(steps)) if at not in stable]):
            return asked, None
        above = max((steps[at] for at, is_so in stable.items() if not is_so), default=-1)
        is_found = highest < len(steps) and above < steps[highest]
        found = {"onset_found": float(is_found)} | point_of_training(cell, "onset_above", above)
        if is_found:
            found |= point_of_training(cell, "onset", steps[highest])
        if self.verifies and highest < len(steps):
            found["onset_monotone"] = float(is_found)
        return asked, found

    def with_proxies(self, cell: Cell, found: Mapping[str, float]) -> Callable[[Sequence[Result]], dict[str, float]]:
        """A `compute` of the onset and of its proxies from the dense training and its recipe alone."""
        scale = noise_scale(cell)
        known = {**found} if scale is None else {**found, "noise_scale": scale}
        return lambda results: {**known, **early_loss(results[0])}


def point_of_training(cell: Cell, name: str, step: int) -> dict[str, float]:
    """A step of the cell's training in iterations, epochs and as a share of its length; -1, before it, is 0 of both."""
    begun = max(step, 0)
    return {
        name: float(step),
        f"{name}_epoch": begun / cell.steps_per_epoch(),
        f"{name}_share": begun / cell.iterations(cell.recipe.steps),
    }


def is_stable(lines: Sequence[Result], threshold: float) -> bool:
    """Whether the mean validation barrier of some paths is under the threshold; refused ones (divergence) are not."""
    barriers = [line["metrics"].get("validation_barrier") for line in lines]
    known = [b for b in barriers if b is not None]
    return len(known) == len(barriers) and sum(known) / len(known) < threshold


def early_loss(dense: Result) -> dict[str, float]:
    """`early_loss`, the mean train loss of the epoch in which the first 5 % of a training end, where it has epochs."""
    losses = dense.get("epoch_losses")
    return {"early_loss": float(losses[max(1, math.ceil(EARLY * len(losses))) - 1])} if losses else {}


def noise_scale(cell: Cell) -> float | None:
    """The noise scale of SGD, lr N / (B (1 - momentum)), with N train images and batches of B; None of other methods.

    Smith & Le 2018 (arXiv 1710.06451), with momentum Smith et al. 2018 (arXiv 1711.00489). A step of AdamW is scaled by
    the gradients' own size, so that the same formula would be another quantity; nor does it know dampening.
    """
    optimizer = cell.recipe.optimizer
    if not isinstance(optimizer, SGD) or optimizer.dampening:
        return None
    images = num_train_images(cell.data)
    return optimizer.lr * images / (cell.recipe.batch_size * (1 - optimizer.momentum))
