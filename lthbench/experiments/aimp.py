"""The budget of the mask search: accelerated iterative magnitude pruning (AIMP).

Zullich et al. 2020 (ICPR): the trainings of the mask search, all levels but the last, take a fraction b of the
budget; the ticket itself is always trained in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lthbench.experiments.cell import Cell, Result
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Experiment, Measurement, PrunedLevels
from lthbench.experiments.imp import searched_mask
from lthbench.fault import Fault

Budgets = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)]


class Aimp(Experiment):
    """Tickets whose masks were searched with a fraction of the budget; b = 1 is iterative magnitude pruning itself.

    Measurements: `ticket, budget B`, with accuracies, distances, `search_epochs` (of all trainings of the search) and
    `search_distance` (relative, of the search's last training: a smaller budget also reduces the distance).

    Attributes:
        budgets: the fractions b.
        schedule: `compressed`, milestones and warm-up shrink with the length; `truncated`, training stops early.
        levels: the levels whose tickets are trained.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "distance_relative", "search_epochs", "search_distance")
    variants: ClassVar = ("ticket, budget *",)
    metrics: ClassVar = (*ACCURACY, *DISTANCE, "search_epochs", "search_distance")

    budgets: Budgets = (1, 0.5, 0.25, 0.1, 0.05)
    schedule: Literal["compressed", "truncated"] = "compressed"
    levels: PrunedLevels

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        for budget in self.budgets:
            searching = with_budget(cell, budget, self.schedule)
            for level in self.levels:
                ticket = cell.train(mask=searched_mask(searching, level, 0), noise=level)
                last = searching.searched(level - 1)
                spent = searching.search_stop or searching.iterations(searching.search.steps, searching.search)
                yield Measurement(
                    ticket,
                    f"ticket, budget {budget:g}",
                    ACCURACY + DISTANCE,
                    level=level,
                    others=(last,),
                    compute=search_cost(level * spent / cell.steps_per_epoch(cell.search)),
                )

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from budget_faults(self.budgets, cell)


def budget_faults(budgets: Sequence[float], cell: Cell) -> Iterator[Fault]:
    """Budgets that leave no iteration of a search."""
    total = cell.iterations(cell.search.steps, cell.search)
    for position, budget in enumerate(budgets):
        if round(budget * total) < 1:
            yield Fault(
                ("budgets", position), f"{budget:g} of a search of {total:,} iterations is less than one iteration"
            )


def search_cost(epochs: float) -> Callable[[Sequence[Result]], Mapping[str, float]]:
    """A `compute` of the epochs of a mask search and the distance of its last training, if any weight survived it."""

    def cost(results: Sequence[Result]) -> dict[str, float]:
        distance = results[1]["metrics"].get("distance_relative")
        return {"search_epochs": epochs} | ({} if distance is None else {"search_distance": distance})

    return cost


def with_budget(cell: Cell, budget: float, schedule: Literal["compressed", "truncated"]) -> Cell:
    """The cell with a mask search of a fraction of the budget; the cell itself for the whole of it."""
    if budget == 1:
        return cell
    per_epoch = cell.steps_per_epoch(cell.search)
    if schedule == "compressed":
        return cell.with_search(cell.search.scaled(budget, per_epoch))
    return cell.with_search(cell.search, stop=round(budget * cell.search.steps.count(per_epoch)))
