"""The mask-search budget: accelerated iterative magnitude pruning (AIMP).

Zullich et al. 2020 (ICPR): the trainings of the mask search, all levels but the last, take a fraction b of the
budget; the ticket itself is always trained in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lthbench.experiments.cell import Cell
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Experiment, PrunedLevels, Reading, constant
from lthbench.experiments.imp import searched_mask


class Aimp(Experiment):
    """Tickets whose masks were searched with a fraction of the budget; b = 1 is iterative magnitude pruning itself.

    Attributes:
        budgets: the fractions b.
        schedule: `compressed`, milestones and warm-up shrink with the length; `truncated`, training just stops early.
        levels: the levels whose tickets are trained.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "distance_relative", "search_epochs")

    budgets: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (1, 0.5, 0.25, 0.1, 0.05)
    schedule: Literal["compressed", "truncated"] = "compressed"
    levels: PrunedLevels

    def readings(self, cell: Cell) -> Iterator[Reading]:
        for budget in self.budgets:
            searching = with_budget(cell, budget, self.schedule)
            for level in self.levels:
                ticket = cell.train(mask=searched_mask(searching, level, 0), noise=level)
                epochs = level * budget * cell.iterations(cell.search.steps) / cell.steps_per_epoch(cell.search)
                yield Reading(
                    ticket,
                    f"ticket, budget {budget:g}",
                    ACCURACY + DISTANCE,
                    level=level,
                    compute=constant(search_epochs=epochs),
                )


def with_budget(cell: Cell, budget: float, schedule: Literal["compressed", "truncated"]) -> Cell:
    """The cell with a mask search of a fraction of the budget; the cell itself for the whole of it."""
    if budget == 1:
        return cell
    per_epoch = cell.steps_per_epoch(cell.search)
    if schedule == "compressed":
        return cell.with_search(cell.search.scaled(budget, per_epoch))
    return cell.with_search(cell.search, stop=max(1, round(budget * cell.search.steps.count(per_epoch))))
