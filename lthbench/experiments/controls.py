"""Controls of a ticket: what remains of its accuracy with another mask or other initial weights.

A ticket wins only if it also beats a reinitialisation on its mask (Liu et al. 2021, arXiv 2102.11068; Ma et al.
2021, arXiv 2107.00166).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import Field

from lthbench.experiments.cell import Cell
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Experiment, Measurement, PrunedLevels
from lthbench.experiments.imp import rewind_faults, searched_mask
from lthbench.fault import Fault
from lthbench.names import unknown
from lthbench.tasks.spec import Task
from lthbench.training.steps import Steps

Kind = Literal["reinit", "random", "shuffled", "shuffled-weights", "one-shot", "movement"]
REINITIALISATION = 1


class Control(NamedTuple):
    """How a control differs from the ticket that it is compared with.

    Attributes:
        noun: its networks, as a plural; {0} is whose they are.
        mask: its mask, from the cell, the mask that was searched, and the level.
        fields: of its training (TrainSpec).
        rewinds: whether it starts from the weights that the ticket is rewound to; else at step 0.
        is_searched: whether its mask derives from the searched one, and so depends on the budget of the mask search.
    """

    noun: str
    mask: Callable[[Cell, Task, int], Task] = lambda cell, searched, level: searched
    fields: Mapping[str, Any] = {}
    rewinds: bool = True
    is_searched: bool = True


CONTROLS: dict[Kind, Control] = {
    "reinit": Control("reinitialisations on {0}masks", fields={"init": REINITIALISATION}, rewinds=False),
    "random": Control("random {0}masks", lambda cell, searched, level: cell.imitated_mask("random", searched, level)),
    "shuffled": Control(
        "shuffled {0}masks", lambda cell, searched, level: cell.imitated_mask("shuffled", searched, level)
    ),
    "shuffled-weights": Control("{0}tickets with shuffled weights", fields={"shuffle": True}),
    "one-shot": Control(
        "one-shot {0}masks", lambda cell, searched, level: cell.next_mask(cell.dense(), None, level), is_searched=False
    ),
    "movement": Control(
        "{0}masks by movement",
        lambda cell, searched, level: cell.next_mask(cell.dense(), None, level, criterion="movement"),
        is_searched=False,
    ),
}


class Controls(Experiment):
    """The controls of the tickets of some levels, each trained with the ticket's recipe and SGD noise.

    Measurements: the names of `kinds`, with accuracies and distances.

    Attributes:
        kinds: `reinit`, the mask with another initialisation; `random`, a random mask with the same layer
            densities on the ticket's initial weights; `shuffled`, the mask with the units of each layer permuted;
            `shuffled-weights`, the ticket's initial weights permuted among each layer's surviving positions;
            `one-shot`, a mask found from the dense network in one step; `movement`, one found from it by how much
            magnitudes grew.
        levels: the levels at which they are trained.
        rewind: that of the tickets they are compared with; a reinitialisation always starts at step 0.
    """

    variants: ClassVar = get_args(Kind)
    metrics: ClassVar = ACCURACY + DISTANCE
    headlines: ClassVar = (
        ("reinit", "test_accuracy", "of its mask, reinitialised"),
        ("random", "test_accuracy", "of a random mask"),
    )

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = (
        "reinit",
        "random",
        "shuffled",
        "shuffled-weights",
        "one-shot",
    )
    levels: PrunedLevels
    rewind: Steps = Steps()

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        rewind = cell.iterations(self.rewind)
        for level in self.levels:
            for kind in self.kinds:
                task = control(cell, kind, level, rewind)
                yield Measurement(task, kind, ACCURACY + DISTANCE, level=level, step=rewind)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from rewind_faults(self.rewind, cell)


def mask_and_fields(cell: Cell, kind: Kind, level: int, rewind: int) -> tuple[Task, dict[str, Any]]:
    """The mask of a control, and the fields of its training (TrainSpec)."""
    mask = CONTROLS[kind].mask(cell, searched_mask(cell, level, rewind), level)
    return mask, {"noise": level, **CONTROLS[kind].fields}


def control(cell: Cell, kind: Kind, level: int, rewind: int) -> Task:
    """The training of one control."""
    mask, fields = mask_and_fields(cell, kind, level, rewind)
    return cell.train(start=cell.spawn(rewind) if CONTROLS[kind].rewinds else None, mask=mask, **fields)


class CrossedMasks(Experiment):
    """Masks of other arms trained with this arm's recipe: is it the mask or the recipe that makes the ticket?

    Measurements: `mask of ARM`, with accuracies and distances.

    Attributes:
        masks: the arms whose masks are taken; None is every other arm.
        levels: the levels at which they are trained.
    """

    variants: ClassVar = ("mask of *",)
    metrics: ClassVar = ACCURACY + DISTANCE

    masks: tuple[str, ...] | None = None
    levels: PrunedLevels

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        for name in self.masks if self.masks is not None else cell.arms:
            if name == cell.arm:
                continue
            other = cell.with_arm(name)
            for level in self.levels:
                task = cell.train(mask=searched_mask(other, level, 0), noise=level)
                yield Measurement(task, f"mask of {name}", ACCURACY + DISTANCE, level=level)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        for position, name in enumerate(self.masks or ()):
            if name not in cell.arms:
                yield Fault(("masks", position), unknown("arm", name, cell.arms))
