"""Stability to SGD noise: the error barrier between children spawned from one step of the dense training.

Frankle et al. 2020 (arXiv 1912.05671), section 2: copies of the network of step k are trained to the end with
different SGD noise; it is stable at k where the barrier between them is under 2 % of error.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lthbench.experiments.cell import ACCURACY, Cell, Experiment, Reading
from lthbench.training.steps import Steps


class Stability(Experiment):
    """Barriers between all pairs of `children` spawned at each of the steps `spawns`.

    Attributes:
        spawns: the steps k.
        children: how many copies are trained from each; every two of them give a barrier.
        points: evenly spaced alphas, ends included.
        statistics: normalisation statistics along the line, interpolated or recomputed from train images.
        num_train: train images over which the train error is taken; all of them when absent.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "test_barrier", "train_barrier")

    spawns: Annotated[tuple[Steps, ...], Field(min_length=1)]
    children: Annotated[int, Field(ge=2)] = 2
    points: Annotated[int, Field(ge=3)] = 30
    statistics: Literal["interpolate", "recompute"] = "interpolate"
    num_train: Annotated[int, Field(ge=1)] | None = None

    def readings(self, cell: Cell) -> Iterator[Reading]:
        for spawn in self.spawns:
            step = cell.iterations(spawn)
            children = [cell.train(start=(cell.dense(), step), noise=n) for n in range(1, self.children + 1)]
            for child in children:
                yield Reading(child, "child", ACCURACY, level=0, step=step)
            for a, b in combinations(children, 2):
                line = cell.interpolation(
                    a, b, points=self.points, statistics=self.statistics, num_train=self.num_train
                )
                barriers = (
                    "test_barrier",
                    "train_barrier",
                    "test_loss_barrier",
                    "train_loss_barrier",
                    "distance",
                )
                yield Reading(line, "barrier", barriers, level=0, step=step)
