"""Controls of a ticket: what remains of its accuracy when its mask or its initial weights are not its own.

A ticket wins only if it also beats a reinitialisation on its mask (Liu et al. 2021, arXiv 2102.11068; Ma et al.
2021, arXiv 2107.00166).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from lthbench.experiments.cell import Cell
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Experiment, PrunedLevels, Reading
from lthbench.experiments.imp import rewind_faults, searched_mask
from lthbench.fault import Fault
from lthbench.names import unknown
from lthbench.tasks.spec import Task
from lthbench.training.steps import Steps

Kind = Literal["reinit", "random", "shuffled", "shuffled-weights", "one-shot", "movement"]
REINITIALISATION = 1


class Controls(Experiment):
    """The controls of the tickets of some levels, each trained with the ticket's recipe and SGD noise.

    Readings: the names of `kinds`, with accuracies and distances.

    Attributes:
        kinds: `reinit`, the mask with another initialisation; `random`, a random mask with the same layer
            densities on the ticket's initial weights; `shuffled`, the mask with the units of each layer permuted;
            `shuffled-weights`, the ticket's initial weights permuted among the places of each layer that survive;
            `one-shot`, the mask found from the dense network at once; `movement`, one found from it by how much
            magnitudes grew.
        levels: the levels at which they are trained.
        rewind: that of the tickets they are compared with; a reinitialisation always starts at step 0.
    """

    variants: ClassVar = get_args(Kind)
    metrics: ClassVar = ACCURACY + DISTANCE

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = (
        "reinit",
        "random",
        "shuffled",
        "shuffled-weights",
        "one-shot",
    )
    levels: PrunedLevels
    rewind: Steps = Steps()

    def readings(self, cell: Cell) -> Iterator[Reading]:
        rewind = cell.iterations(self.rewind)
        for level in self.levels:
            for kind in self.kinds:
                task = control(cell, kind, level, rewind)
                yield Reading(task, kind, ACCURACY + DISTANCE, level=level, step=rewind)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from rewind_faults(self.rewind, cell)


def control(cell: Cell, kind: Kind, level: int, rewind: int) -> Task:
    """The training of one control."""
    searched = searched_mask(cell, level, rewind)
    start = cell.spawn(rewind)
    match kind:
        case "reinit":
            return cell.train(mask=searched, noise=level, init=REINITIALISATION)
        case "shuffled-weights":
            return cell.train(start=start, mask=searched, noise=level, shuffle=True)
        case "random" | "shuffled":
            mask = cell.imitated_mask(kind, searched, level)
        case "one-shot":
            mask = cell.next_mask(cell.dense(), None, level)
        case "movement":
            mask = cell.next_mask(cell.dense(), None, level, criterion="movement")
    return cell.train(start=start, mask=mask, noise=level)


class CrossedMasks(Experiment):
    """Masks of other arms trained with this arm's recipe: is it the mask or the recipe that makes the ticket?

    Readings: `mask of ARM`, with accuracies and distances.

    Attributes:
        masks: the arms whose masks are taken; None is every other arm.
        levels: the levels at which they are trained.
    """

    variants: ClassVar = ("mask of *",)
    metrics: ClassVar = ACCURACY + DISTANCE

    masks: tuple[str, ...] | None = None
    levels: PrunedLevels

    def readings(self, cell: Cell) -> Iterator[Reading]:
        for name in self.masks if self.masks is not None else cell.arms:
            if name == cell.arm:
                continue
            other = cell.with_arm(name)
            for level in self.levels:
                task = cell.train(mask=searched_mask(other, level, 0), noise=level)
                yield Reading(task, f"mask of {name}", ACCURACY + DISTANCE, level=level)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        for position, name in enumerate(self.masks or ()):
            if name not in cell.arms:
                yield Fault(("masks", position), unknown("arm", name, cell.arms))
