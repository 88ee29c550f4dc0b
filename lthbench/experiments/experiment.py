"""`Experiment`: what is measured of a cell, as measurements of tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lthbench.experiments.cell import Cell, Result
from lthbench.fault import Fault
from lthbench.tasks.spec import Task
from lthbench.training.recipe import Recipe
from lthbench.training.steps import Steps

ACCURACY = tuple(f"{split}_{m}" for split in ("test", "train", "validation") for m in ("accuracy", "loss"))
DISTANCE = (
    "distance",
    "distance_rms",
    "distance_relative",
    "distance_angle",
    "overlap",
    "path_length",
    "empty_layers",
)
BARRIER = (
    *(f"{split}_{barrier}" for barrier in ("barrier", "loss_barrier") for split in ("test", "train", "validation")),
    "distance",
    "distance_shared",
)

MAX_LEVEL = 999  # SGD noises from 1000 on are those of children (stability)
Level = Annotated[int, Field(ge=0, le=MAX_LEVEL)]
PrunedLevel = Annotated[int, Field(ge=1, le=MAX_LEVEL)]
PrunedLevels = Annotated[tuple[PrunedLevel, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Measurement:
    """Numbers read from the results of some tasks, and what they are numbers of.

    Attributes:
        task: the task whose density and key the numbers have.
        variant: what was measured, as `ticket`, `random mask`, `dense`.
        metrics: those of the task's own metrics that are read.
        level: pruning level, for masked networks.
        step: iteration of spawning or rewinding, or the point of training, if it matters.
        others: further tasks that `compute` needs.
        selects: whether a choice depends on it (what a control is matched by, an onset that classifies an arm):
            selection replicates are planned for such measurements, and for the candidates of claims that choose.
        compute: further numbers by name, from the results of `task` and `others`, in order.
    """

    task: Task
    variant: str
    metrics: tuple[str, ...] = ()
    level: int | None = None
    step: int | None = None
    others: tuple[Task, ...] = ()
    selects: bool = False
    compute: Callable[[Sequence[Result]], Mapping[str, float]] | None = None

    def numbers(self, results: Sequence[Result]) -> dict[str, float]:
        """The numbers by name; what a result lacks (a training that diverged, what is undefined) is left out."""
        own: Mapping[str, Any] = results[0]["metrics"]
        found = {name: float(own[name]) for name in self.metrics if name in own}
        if self.compute is not None and all(result["status"] == "ok" for result in results):
            found |= self.compute(results)
        return found


def best(values: Mapping[str, Sequence[float]]) -> str:
    """The key with the largest mean, the first of several.

    Experiments and claims both choose by it, so that they choose the same.
    """
    return max(values, key=lambda name: math.fsum(values[name]) / len(values[name]))


class Experiment(BaseModel):
    """One experiment of the paper: its settings, and what it measures of which tasks of a cell.

    An experiment whose next task depends on results (a bisection) yields what is known so far, and is called again when
    that is done.

    Attributes:
        arms: the arms that it runs on; None is all of them.
        variants, metrics: those that its measurements can have, whatever its settings; `*` stands for any text.
        shown: the metrics that summaries show first.
        headlines: what the short table of a pair has of it: variant, metric, and what that is called there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    variants: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[str, ...]] = ()

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "distance_relative")
    headlines: ClassVar[tuple[tuple[str, str, str], ...]] = ()

    arms: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _each_once(self) -> Experiment:
        for name, values in self:
            if isinstance(values, tuple):
                twice = [value for position, value in enumerate(values) if value in values[:position]]
                if twice:
                    raise ValueError(f"{name} has {twice[0]} twice, which would count as two measurements")
        return self

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        """The measurements of one cell; the tasks they name are what must run."""
        raise NotImplementedError

    def later(self) -> Iterator[tuple[str, int]]:
        """Variant and level of measurements that may first be planned when results of others are there."""
        return iter(())

    def faults(self, cell: Cell) -> Iterator[Fault]:
        """Which of its settings the data, recipes and arms of a cell rule out, before anything is run."""
        yield from ()


def points_beyond(key: str, points: Sequence[Steps], cell: Cell, recipes: Iterable[Recipe]) -> Iterator[Fault]:
    """A fault for the first of some points of training, given under a key, that leaves nothing to train.

    Args:
        recipes: what is trained from the points, which are points of the cell's own recipe.
    """
    for position, point in enumerate(points):
        at = cell.iterations(point)
        for recipe in recipes:
            if at and at >= (total := cell.iterations(recipe.steps, recipe)):
                message = f"{point}, iteration {at:,}, leaves nothing to train of the {total:,} of arm '{cell.arm}'"
                yield Fault((key, position), message)
                return
