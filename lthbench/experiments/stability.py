"""Stability to SGD noise: the error barrier between children spawned from one step of a training.

Frankle et al. 2020 (arXiv 1912.05671), section 2: copies of the network of step k are trained to the end with
different SGD noise; it is stable at k where the barrier between them is under 2 % of error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lthbench.experiments.cell import Cell, Result
from lthbench.experiments.experiment import ACCURACY, BARRIER, Experiment, Level, PrunedLevels, Reading, constant
from lthbench.tasks.spec import Task
from lthbench.training.steps import Steps

# Children beside the ticket itself, whose SGD noise is its level; levels never come so high.
FIRST_CHILD_NOISE = 1000


class _Lines(Experiment):
    """How lines between networks are evaluated.

    Attributes:
        children: how many copies are trained from each spawn; every two of them give a barrier.
        points: evenly spaced alphas, ends included.
        statistics: normalisation statistics along the line, interpolated or recomputed from train images.
        num_train: train images over which the train error is taken; all of them when absent.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "test_barrier", "train_barrier")

    children: Annotated[int, Field(ge=2)] = 2
    points: Annotated[int, Field(ge=3)] = 30
    statistics: Literal["interpolate", "recompute"] = "interpolate"
    num_train: Annotated[int, Field(ge=1)] | None = None

    def family(self, cell: Cell, step: int, level: int = 0) -> list[Task]:
        """The children of a spawn: the network's own training where it starts there, then others."""
        mask = cell.mask(level, step)
        noises = [level, *(FIRST_CHILD_NOISE + n for n in range(1, self.children))]
        return [cell.train(start=cell.spawn(step), mask=mask, noise=noise) for noise in noises]

    def lines(self, cell: Cell, tasks: Sequence[Task]) -> list[Task]:
        """The lines between every two of some trainings."""
        return [
            cell.line(a, b, points=self.points, statistics=self.statistics, num_train=self.num_train)
            for a, b in combinations(tasks, 2)
        ]


class Stability(_Lines):
    """Barriers between all pairs of `children` spawned at each of the steps `spawns`.

    Attributes:
        spawns: the steps k.
        levels: the pruning levels of the networks; 0 is the dense one. A pruned one is rewound to its spawn.
    """

    spawns: Annotated[tuple[Steps, ...], Field(min_length=1)]
    levels: Annotated[tuple[Level, ...], Field(min_length=1)] = (0,)

    def readings(self, cell: Cell) -> Iterator[Reading]:
        for level in self.levels:
            for spawn in self.spawns:
                step = cell.iterations(spawn)
                children = self.family(cell, step, level)
                for child in children:
                    yield Reading(child, "child", ACCURACY, level=level, step=step)
                for line in self.lines(cell, children):
                    yield Reading(line, "barrier", BARRIER, level=level, step=step)


class LevelBarriers(_Lines):
    """Barriers between the trained tickets of successive levels (Paul et al. 2023, arXiv 2210.03044)."""

    levels: PrunedLevels
    rewind: Steps = Steps()

    def readings(self, cell: Cell) -> Iterator[Reading]:
        rewind = cell.iterations(self.rewind)
        for level in self.levels:
            (line,) = self.lines(cell, [cell.ticket(level - 1, rewind), cell.ticket(level, rewind)])
            yield Reading(line, "barrier to the level before", BARRIER, level=level, step=rewind)


class Onset(_Lines):
    """The onset k*: the first step of a grid whose children are stable, found by bisection; and its cheap proxies.

    The bisection takes stability to be monotone in k. The onset lies above the last unstable step, `onset_above`,
    and at or below the first stable one, `onset`; where no step of the grid is stable, `onset` is missing.

    Attributes:
        grid: the steps, ascending.
        threshold: the error barrier under which a network is stable (2 % in the literature).
    """

    shown: ClassVar[tuple[str, ...]] = ("onset_above", "onset", "noise_scale")

    grid: Annotated[tuple[Steps, ...], Field(min_length=2)]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02

    def readings(self, cell: Cell) -> Iterator[Reading]:
        steps = [cell.iterations(step) for step in self.grid]
        if steps != sorted(set(steps)):
            raise ValueError(f"grid is {', '.join(map(str, self.grid))}; its steps must ascend")
        lowest, highest = -1, len(steps)  # positions known (or taken) to be unstable, stable
        lines: list[Task] = []
        while highest - lowest > 1:
            middle = (lowest + highest) // 2
            lines = self.lines(cell, self.family(cell, steps[middle]))
            for line in lines:
                yield Reading(line, "barrier", BARRIER, level=0, step=steps[middle])
            results = [cell.result_of(line) for line in lines]
            if any(result is None for result in results):
                return
            if is_stable([r for r in results if r is not None], self.threshold):
                highest = middle
            else:
                lowest = middle
        found = {"onset_above": float(steps[lowest]) if lowest >= 0 else -1.0}
        if highest < len(steps):
            found["onset"] = float(steps[highest])
        found["noise_scale"] = noise_scale(cell)
        yield Reading(
            cell.dense(), "onset", ("distance_relative",), level=0, others=tuple(lines), compute=constant(**found)
        )


def is_stable(lines: Sequence[Result], threshold: float) -> bool:
    """Whether the mean test barrier of some lines is under the threshold; a refused line (divergence) is unstable."""
    barriers = [line["metrics"].get("test_barrier") for line in lines]
    known = [b for b in barriers if b is not None]
    return len(known) == len(barriers) and sum(known) / len(known) < threshold


def noise_scale(cell: Cell) -> float:
    """The noise scale of SGD, lr N / (B (1 - momentum)) (McCandlish et al. 2018, arXiv 1812.06162)."""
    optimizer = cell.recipe.optimizer
    momentum = getattr(optimizer, "momentum", 0.0)
    return optimizer.lr * cell.steps_per_epoch() / (1 - momentum)
