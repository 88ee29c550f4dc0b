"""Iterative magnitude pruning: tickets at initialisation (rewind 0it) or rewound to an early step.

Frankle & Carbin 2019 (arXiv 1803.03635); Frankle et al. 2020 (arXiv 1912.05671), algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from lthbench.experiments.cell import ACCURACY, DISTANCE, Cell, Experiment, Reading
from lthbench.training.steps import Steps


class Imp(Experiment):
    """Accuracy and learning distance of the trained tickets of every level from 0 (dense) to `levels`.

    Attributes:
        levels: how often the network is pruned.
        rewind: the step whose weights the survivors are set back to.
    """

    levels: Annotated[int, Field(ge=0)]
    rewind: Steps = Steps()

    def readings(self, cell: Cell) -> Iterator[Reading]:
        rewind = cell.iterations(self.rewind)
        for level in range(self.levels + 1):
            variant = "ticket" if level else "dense"
            yield Reading(cell.ticket(level, rewind), variant, ACCURACY + DISTANCE, level=level, step=rewind)
