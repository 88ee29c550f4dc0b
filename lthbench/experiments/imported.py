"""Tickets that other methods found elsewhere, judged by the controls that ours are.

A ticket is judged against a reinitialisation and a random mask of its layer densities (Frankle et al. 2021, arXiv
2009.08576; Liu et al. 2021, arXiv 2102.11068).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from lthbench.experiments.cell import Cell
from lthbench.experiments.controls import CONTROLS
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Experiment, Measurement, PrunedLevel
from lthbench.tasks.spec import MaskSpec, Sha256, Task

Of = Literal["reinit", "random", "shuffled", "shuffled-weights"]
UNKNOWN = "0" * 64  # of a ticket, where a suite is read without a store


class Imported(Experiment):
    """Tickets that `lthbench ticket import` brought into the store, trained with each arm's recipe, and their controls.

    A ticket is one replicate: its network was initialised, and its mask found, once. So `tickets` has one for each,
    and replicates beyond them measure nothing.

    Measurements: `ticket`, with accuracies and distances, where its initial weights came with it; and the names of
    `kinds`. Their density is that of the imported mask, whatever the level.

    Attributes:
        tickets: their names in the store, the first that of replicate 0.
        digests: those that `ticket import` printed: another ticket under a name is then refused. Unless given they are
            taken from the store; they are part of every task's key.
        weights: `imported`, tickets start from the weights that came with them; `own`, from each replicate's own
            initialisation, which to a mask found for another is a reinitialisation, so that there is no `ticket`.
        level: of the pair's own tickets that they are compared with in tables and claims.
        kinds: controls, as of `controls`, on the imported mask or in its likeness.
    """

    variants: ClassVar = ("ticket", *get_args(Of))
    metrics: ClassVar = ACCURACY + DISTANCE

    tickets: Annotated[tuple[str, ...], Field(min_length=1)]
    digests: tuple[Sha256, ...] | None = None
    weights: Literal["imported", "own"] = "imported"
    level: PrunedLevel
    kinds: tuple[Of, ...] = ("reinit", "random", "shuffled", "shuffled-weights")

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        if cell.is_selection or cell.replicate >= len(self.tickets):
            return
        digest = self.digests[cell.replicate] if self.digests else UNKNOWN
        imported = Task(MaskSpec(level=self.level, criterion="imported", ticket=digest))
        start = (imported, None) if self.weights == "imported" else None
        if start is not None:
            ticket = cell.train(start=start, begin=0, mask=imported, noise=self.level)
            yield Measurement(ticket, "ticket", ACCURACY + DISTANCE, level=self.level)
        for kind in self.kinds:
            control = CONTROLS[kind]
            if start is None and kind == "shuffled-weights":  # of an own initialisation nothing is its ticket's
                continue
            task = cell.train(
                start=start if control.rewinds else None,
                begin=0,
                mask=control.mask(cell, imported, self.level),
                noise=self.level,
                **control.fields,
            )
            yield Measurement(task, kind, ACCURACY + DISTANCE, level=self.level)
