"""Controls of a ticket: what remains of its accuracy when its mask or its initial weights are not its own.

A ticket wins only if it also beats a reinitialisation on its mask (Liu et al. 2021, arXiv 2102.11068; Ma et al.
2021, arXiv 2107.00166).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from lthbench.experiments.cell import ACCURACY, DISTANCE, Cell, Experiment, Reading
from lthbench.training.steps import Steps


class Controls(Experiment):
    """The controls of the tickets of some levels, each trained with the ticket's recipe and SGD noise.

    Attributes:
        kinds: `reinit`, the mask with another initialisation; `random`, a random mask with the same layer
            densities on the ticket's initial weights.
        levels: the levels at which they are trained.
        rewind: that of the tickets they are compared with; a reinitialisation always starts at step 0.
    """

    kinds: Annotated[tuple[Literal["reinit", "random"], ...], Field(min_length=1)] = ("reinit", "random")
    levels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
    rewind: Steps = Steps()

    def readings(self, cell: Cell) -> Iterator[Reading]:
        rewind = cell.iterations(self.rewind)
        for level in self.levels:
            for kind in self.kinds:
                if kind == "reinit":
                    task = cell.train(mask=cell.mask(level, rewind), noise=level, init=1)
                else:
                    start = (cell.dense(), rewind) if rewind else None
                    task = cell.train(start=start, mask=cell.random_mask(level, rewind), noise=level)
                name = {"reinit": "reinit", "random": "random mask"}[kind]
                yield Reading(task, name, ACCURACY + DISTANCE, level=level, step=rewind)
