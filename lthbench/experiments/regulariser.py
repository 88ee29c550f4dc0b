"""The distance regulariser (lambda/2) ||m (theta - theta_0)||^2: where, how strong, instead of what, and its controls.

The paper's abstract: a regulariser that limits the learning distance improves the tickets of late-stable recipes.
Whether it acts in mask search or ticket training, and whether distance or regularisation as such helps, are told
apart by the factors and controls here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from lthbench.experiments.cell import Cell, Result
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Experiment, PrunedLevels, Reading
from lthbench.tasks.spec import Task
from lthbench.training.recipe import Recipe

OTHER_INITIALISATION = 2
MATCHED_WITHIN = 0.02
MAX_HALVINGS = 7

Place = Literal["search", "training", "both"]
Control = Literal["weight-decay", "other-init", "early-stopping", "low-lr"]


class Regulariser(Experiment):
    """Tickets found, trained, or both, under the pull; and controls of it in the mask search.

    Readings: `pull LAMBDA in PLACE` (`..., no weight decay` where replaced) and `CONTROL for pull LAMBDA`. At level
    0 stands the dense network of that mask search; at the others, its tickets. With accuracies, distances,
    `search_distance` (relative, of that dense network) and, for the controls, `target_distance`, that of the dense
    network under the pull, which the matched ones are to reach. `matching of CONTROL` are the trainings of matching.

    Attributes:
        strengths: the lambdas; 0 is no pull.
        places: where the pull acts: in mask search, in the ticket's training, in both.
        weight_decay: `kept` beside the pull or `replaced` by it, where it acts.
            Without weight decay in the recipe both are one.
        controls: made for each strength in the mask search: `weight-decay` of the same strength; `other-init`, the
            pull to another initialisation; `early-stopping` and `low-lr`, which reach the pulled dense network's
            distance without it (the recipe is stopped early, or its rate lowered, each by bisection).
        levels: the levels whose tickets are trained.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "distance_relative", "search_distance")
    variants: ClassVar = (
        *(f"pull * in {place}{decay}" for place in get_args(Place) for decay in ("", ", no weight decay")),
        *(name for control in get_args(Control) for name in (f"{control} for pull *", f"matching of {control}")),
    )
    metrics: ClassVar = (*ACCURACY, *DISTANCE, "search_distance", "target_distance")

    strengths: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]
    places: tuple[Place, ...] = ("search", "training", "both")
    weight_decay: tuple[Literal["kept", "replaced"], ...] = ("kept",)
    controls: tuple[Control, ...] = ()
    levels: PrunedLevels

    def readings(self, cell: Cell) -> Iterator[Reading]:
        for strength in self.strengths:
            for decay in self.weight_decay:
                for place in self.places:
                    search = pulled(cell.search, strength, decay) if place != "training" else cell.search
                    recipe = pulled(cell.recipe, strength, decay) if place != "search" else cell.recipe
                    name = f"pull {strength:g} in {place}" + (", no weight decay" if decay == "replaced" else "")
                    yield from self._tickets(cell.with_search(search), name, recipe)
            for control in self.controls:
                searching = self._control(cell, control, strength)
                if searching is not None:
                    name = f"{control} for pull {strength:g}"
                    target = cell.with_search(pulled(cell.search, strength, "kept")).searched(0)
                    yield from self._tickets(searching, name, cell.recipe, target)
                else:
                    yield from self._matching(cell, control, strength)

    def _tickets(self, searching: Cell, name: str, recipe: Recipe, target: Task | None = None) -> Iterator[Reading]:
        dense = searching.searched(0)
        for level in (0, *self.levels):
            mask = searching.mask(level)
            yield Reading(
                searching.train(recipe=recipe, mask=mask, noise=level) if level else dense,
                name,
                ACCURACY + DISTANCE,
                level=level,
                others=(dense,) if target is None else (dense, target),
                compute=search_distances,
            )

    def _control(self, cell: Cell, control: Control, strength: float) -> Cell | None:
        """The cell whose mask search is the control's; None while what it must match is not known."""
        if control == "weight-decay":
            optimizer = cell.search.optimizer
            decay = optimizer.model_copy(update={"weight_decay": optimizer.weight_decay + strength})
            return cell.with_search(cell.search.model_copy(update={"optimizer": decay}))
        if control == "other-init":
            return cell.with_search(pulled(cell.search, strength, "kept"), anchor=OTHER_INITIALISATION)
        last = None
        for task, matched in matching(cell, control, strength):
            last = matched
            if cell.result_of(task) is None:
                return None
        return last

    def _matching(self, cell: Cell, control: Control, strength: float) -> Iterator[Reading]:
        """The trainings that the matching of a control has needed so far."""
        for task, _ in matching(cell, control, strength):
            yield Reading(task, f"matching of {control}", ("distance_relative",), level=0)


def search_distances(results: Sequence[Result]) -> dict[str, float]:
    """The relative distance of the search's dense network and, where there is one, of the network it is to match."""
    names = ("search_distance", "target_distance")
    return {name: r["metrics"]["distance_relative"] for name, r in zip(names, results[1:], strict=False)}


def pulled(recipe: Recipe, strength: float, decay: Literal["kept", "replaced"]) -> Recipe:
    """A recipe with the pull, and with or without its weight decay; the recipe itself for strength 0."""
    if strength == 0:
        return recipe
    changes: dict[str, Any] = {"pull": strength}
    if decay == "replaced":
        changes["optimizer"] = recipe.optimizer.model_copy(update={"weight_decay": 0.0})
    return recipe.model_copy(update=changes)


def matching(cell: Cell, control: Control, strength: float) -> Iterator[tuple[Task, Cell | None]]:
    """The dense trainings by which a control's distance is matched, and after each the cell that matches best by then.

    The target is the relative distance of the dense network trained under the pull. The iteration at which training
    stops is found by bisection within the epoch that passes the target, the lower learning rate by bisection of its
    logarithm.
    """
    target_task = cell.with_search(pulled(cell.search, strength, "kept")).searched(0)
    yield target_task, None
    target = _distance(cell, target_task)
    if target is None or math.isinf(target):
        return
    if control == "low-lr":
        rate = cell.search.optimizer.lr
        yield from _halving(cell, target, _with_rate, math.log(rate / 1000), math.log(rate))
        return
    free_task = cell.searched(0)
    yield free_task, None
    free = cell.result_of(free_task)
    if free is None:
        return
    per_epoch, metrics = cell.steps_per_epoch(cell.search), free["metrics"]
    low, high = 0, cell.iterations(cell.search.steps, cell.search)
    if free["status"] == "ok":
        scale = metrics["distance_relative"] / metrics["distance"]
        passing = [epoch for epoch, distance in enumerate(free["epoch_distances"]) if distance * scale >= target]
        if not passing:  # the pull did not shorten the way: there is nothing to stop
            yield free_task, cell
            return
        low, high = passing[0] * per_epoch, min(high, (passing[0] + 1) * per_epoch)
    yield from _halving(cell, target, _stopped_at, low, high)


def _halving(
    cell: Cell, target: float, candidate_at: Callable[[Cell, float], Cell], low: float, high: float
) -> Iterator[tuple[Task, Cell | None]]:
    """The dense trainings of a bisection between a value whose distance is under the target and one whose is over."""
    best, error = None, math.inf
    for _ in range(MAX_HALVINGS):
        middle = (low + high) / 2
        candidate = candidate_at(cell, middle)
        task = candidate.searched(0)
        reached = _distance(cell, task)
        if reached is not None and abs(reached - target) < error:
            best, error = candidate, abs(reached - target)
        yield task, best
        if reached is None or error <= MATCHED_WITHIN * target:
            return
        low, high = (middle, high) if reached < target else (low, middle)


def _with_rate(cell: Cell, logarithm: float) -> Cell:
    """The cell whose mask search has another learning rate, of four digits, so that it can be written down."""
    optimizer = cell.search.optimizer.model_copy(update={"lr": float(f"{math.exp(logarithm):.4g}")})
    return cell.with_search(cell.search.model_copy(update={"optimizer": optimizer}))


def _stopped_at(cell: Cell, iteration: float) -> Cell:
    """The cell whose mask search stops its trainings early."""
    return cell.with_search(cell.search, stop=max(1, round(iteration)))


def _distance(cell: Cell, task: Task) -> float | None:
    """The relative distance of a training: infinite where it diverged, None while it is not done."""
    result = cell.result_of(task)
    if result is None:
        return None
    return float(result["metrics"]["distance_relative"]) if result["status"] == "ok" else math.inf
