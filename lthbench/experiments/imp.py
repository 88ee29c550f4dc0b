"""Iterative magnitude pruning: tickets at initialisation (rewind 0it) or rewound to an early step.

Frankle & Carbin 2019 (arXiv 1803.03635); Frankle et al. 2020 (arXiv 1912.05671), algorithm 2. Learning-rate rewinding,
an upper reference, keeps the trained weights and repeats the schedule: Renda et al. 2020 (arXiv 2003.02389).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from lthbench.experiments.cell import Cell
from lthbench.experiments.experiment import (
    ACCURACY,
    DISTANCE,
    Experiment,
    Level,
    Measurement,
    PrunedLevel,
    points_beyond,
)
from lthbench.fault import Fault
from lthbench.tasks.spec import CriterionName, Task
from lthbench.training.steps import Steps

FORMS = ("distance", "distance_rms", "distance_relative", "distance_angle")
TRAINED = ACCURACY + DISTANCE + tuple(f"{form}_from_init" for form in FORMS)
PRUNED = (*(f"{form}_{part}" for form in FORMS for part in ("kept", "pruned")), "empty_layers", "dead_units")


class Imp(Experiment):
    """Accuracy and learning distance of the trained tickets of every level from 0 (dense) to `levels`.

    Measurements: `dense` (level 0) and `ticket`, with accuracies, distances and, where rewound, distances `_from_init`;
    `mask`, with the distances of the weights that this pruning keeps and removes (`_kept`, `_pruned`) and `dead_units`,
    how many neurons and channels have no kept weight into them. All have `empty_layers`, how many prunable layers have
    no survivor; a distance over no weight is missing.

    Attributes:
        levels: how often the network is pruned.
        rewind: the step whose weights the survivors are set back to.
        criterion: by which the masks are made; None is the pair's.
    """

    variants: ClassVar = ("dense", "ticket", "mask")
    metrics: ClassVar = TRAINED + PRUNED
    headlines: ClassVar = (
        ("dense", "test_accuracy", "test accuracy of the dense network"),
        ("ticket", "test_accuracy", "of the ticket"),
        ("dense", "distance_relative", "relative learning distance, dense"),
    )

    levels: Level
    rewind: Steps = Steps()
    criterion: CriterionName | None = None

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        if self.criterion is not None:
            cell = replace(cell, pruning=cell.pruning.model_copy(update={"criterion": self.criterion}))
        rewind = cell.iterations(self.rewind)
        for level in range(self.levels + 1):
            variant = "ticket" if level else "dense"
            yield Measurement(cell.ticket(level, rewind), variant, TRAINED, level=level, step=rewind)
            if (mask := cell.mask(level, rewind)) is not None:
                yield Measurement(mask, "mask", PRUNED, level=level, step=rewind)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from rewind_faults(self.rewind, cell)


def rewind_faults(rewind: Steps, cell: Cell) -> Iterator[Fault]:
    """Whether a `rewind` leaves something to train, in the search and for its tickets."""
    for fault in points_beyond("rewind", (rewind,), cell, (cell.recipe, cell.search)):
        yield Fault(("rewind",), fault.message)


class LearningRateRewinding(Experiment):
    """Networks that are pruned and trained further, level by level, each time with the whole schedule.

    Measurements: `learning-rate rewinding`, with accuracies and distances (of that level's training).

    Attributes:
        levels: how often it is pruned.
    """

    variants: ClassVar = ("learning-rate rewinding",)
    metrics: ClassVar = ACCURACY + DISTANCE

    levels: PrunedLevel

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        network, mask = cell.dense(), None
        for level in range(1, self.levels + 1):
            mask = cell.next_mask(network, mask, level)
            network = cell.train(start=(network, None), begin=0, mask=mask, noise=level)
            yield Measurement(network, "learning-rate rewinding", ACCURACY + DISTANCE, level=level)


def searched_mask(cell: Cell, level: int, rewind: int) -> Task:
    """The mask of a level of at least 1."""
    mask = cell.mask(level, rewind)
    assert mask is not None
    return mask
