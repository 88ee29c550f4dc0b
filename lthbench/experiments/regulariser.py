"""The L2-to-init penalty (L2-SP) (lambda/2) ||m (theta - theta_0)||^2: where, how strong, instead of what; and
controls.

The paper's abstract: a regulariser that limits the learning distance improves the tickets of late-stable recipes.
The factors and controls here separate its effect in the mask search from that in ticket training, and that of the
distance from that of regularisation as such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from lthbench.experiments.cell import Anchor, Cell, Result
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Experiment, Measurement, PrunedLevels, best
from lthbench.fault import Fault
from lthbench.tasks.spec import Task
from lthbench.training.recipe import Recipe, has_weight_decay

OTHER_INITIALISATION = 2
MATCHED_WITHIN = 0.02
MAX_CANDIDATES = 7
HALF_A_DECADE = math.log(10) / 2

Place = Literal["search", "training", "both"]
Decay = Literal["kept", "replaced"]
Matched = Literal["weight-decay", "early-stopping", "low-lr"]
Control = Literal["weight-decay", "other-init", "early-stopping", "low-lr"]
# From a cell to the one whose mask search is changed.
Setting = Callable[[Cell], Cell]
# Numbers by which a setting is described, and the relative distances that were reached with them.
Reached = Sequence[tuple[float, float]]


class Regulariser(Experiment):
    """Tickets found, trained, or both, with the L2-to-init penalty (`pull`); and its controls in the mask search.

    Measurements: `pull LAMBDA in PLACE` (`..., no weight decay` where replaced) and `CONTROL for pull LAMBDA`. At level
    0 stands the dense network of that mask search; at the others, its tickets. With accuracies, distances,
    `search_distance` (relative, of that dense network) and, for the controls, `target_distance`, that of the dense
    network with the penalty, which the matched ones are to reach. `CONTROL for pull LAMBDA, matching` are the dense
    trainings of matching.

    Controls are matched by the mean over the suite's selection replicates, for all replicates that are tested. Without
    any, each replicate is matched by itself: the distance of its dense network is not a tested outcome.

    Attributes:
        strengths: the lambdas; 0 is no penalty.
        places: where the penalty acts: in the mask search, in the ticket's training, or in both.
        weight_decay: `kept` beside the penalty or `replaced` by it, where it acts. Both are the same without weight
            decay in the recipe.
        controls: made for each strength in the mask search: `other-init`, a penalty centred at another initialisation;
            and those that reach the distance of the dense network with the penalty without it, or come closest:
            `early-stopping` of the recipe; `low-lr`, a lower learning rate; `weight-decay`, the same penalty of the
            same weights centred at 0, beside the recipe's own weight decay. (Such a penalty reduces the distance up to
            some strength; a stronger one draws the weights away from where they started, so not every distance can be
            reached.)
        levels: the levels whose tickets are trained.
        in_full: for which strengths there is more than tickets of the penalty in the search: for `all`, or, in a suite
            with selection replicates, for the one `chosen` by them, with the best mean validation accuracy of those
            tickets.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "distance_relative", "search_distance")
    variants: ClassVar = (
        *(f"pull * in {place}{decay}" for place in get_args(Place) for decay in ("", ", no weight decay")),
        *(f"{control} for pull *" for control in get_args(Control)),
    )
    metrics: ClassVar = (*ACCURACY, *DISTANCE, "search_distance", "target_distance")

    strengths: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]
    places: tuple[Place, ...] = ("search", "training", "both")
    weight_decay: tuple[Decay, ...] = ("kept",)
    controls: tuple[Control, ...] = ()
    levels: PrunedLevels
    in_full: Literal["all", "chosen"] = "all"

    @model_validator(mode="after")
    def _has_candidates(self) -> Regulariser:
        if self.in_full == "chosen" and not ("search" in self.places and "kept" in self.weight_decay):
            raise ValueError("in_full: chosen is by tickets of the pull in the search; places needs search, "
                             "weight_decay needs kept")  # fmt: skip
        return self

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        chosen = self._chosen(cell)
        for strength in self.strengths:
            is_full = self.in_full == "all" or strength == chosen
            for decay in self.weight_decay:
                for place in self.places:
                    if not is_full and (place, decay) != ("search", "kept"):
                        continue
                    search = pulled(cell.search, strength, decay) if place != "training" else cell.search
                    recipe = pulled(cell.recipe, strength, decay) if place != "search" else cell.recipe
                    yield from self._tickets(cell.with_search(search), _name(strength, place, decay), recipe)
            for control in self.controls if is_full else ():
                yield from self._control(cell, control, strength)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        if self.in_full == "chosen" and len(self.strengths) > 1:
            if not cell.selection_replicates:
                yield Fault(
                    ("in_full",), "chosen by no replicates; give the suite `selection_replicates: 2`, or write all"
                )
            if not cell.data.validation:
                yield Fault(
                    ("in_full",), "chosen by validation accuracy; give the pair's data a `validation`, or write all"
                )

    def _chosen(self, cell: Cell) -> float | None:
        """The strength that is run in full if one is chosen; None until its candidates are done."""
        if self.in_full == "all" or len(self.strengths) == 1:
            return self.strengths[0]
        accuracies: dict[str, list[float]] = {}
        for strength in self.strengths:
            searching = [_with_pull(one, strength) for one in cell.choosing()]
            tickets = [one.train(mask=one.mask(level), noise=level) for one in searching for level in self.levels]
            results = [result for task in tickets if (result := cell.result_of(task)) is not None]
            if len(results) < len(tickets):
                return None
            # One that diverges somewhere is no candidate.
            accuracies[repr(strength)] = [r["metrics"].get("validation_accuracy", -math.inf) for r in results]
        return float(best(accuracies))

    def _control(self, cell: Cell, control: Control, strength: float) -> Iterator[Measurement]:
        """The tickets of a control, once its matched setting is known; and what matching has needed so far."""
        name = f"{control} for pull {strength:g}"
        if control == "other-init":
            setting: Setting | None = partial(_with_pull, strength=strength, anchor=OTHER_INITIALISATION)
        else:
            setting, tried = match(cell, control, strength)
            tasks = [one(cell).searched(0) for one in tried] if cell.chooses else []
            for task in {task.key: task for task in tasks}.values():
                yield Measurement(task, f"{name}, matching", ("distance_relative",), level=0, selects=True)
        if setting is not None:
            target = _with_pull(cell, strength).searched(0)
            yield from self._tickets(setting(cell), name, cell.recipe, target)

    def later(self) -> Iterator[tuple[str, int]]:
        for strength in self.strengths:
            names = [f"{control} for pull {strength:g}" for control in self.controls]
            if self.in_full == "chosen":
                names += [_name(strength, place, decay) for place in self.places for decay in self.weight_decay]
            yield from ((name, level) for name in names for level in (0, *self.levels))

    def _tickets(self, searching: Cell, name: str, recipe: Recipe, target: Task | None = None) -> Iterator[Measurement]:
        dense = searching.searched(0)
        for level in (0, *self.levels):
            mask = searching.mask(level)
            yield Measurement(
                searching.train(recipe=recipe, mask=mask, noise=level) if level else dense,
                name,
                ACCURACY + DISTANCE,
                level=level,
                others=(dense,) if target is None else (dense, target),
                compute=search_distances,
            )


def _name(strength: float, place: Place, decay: Decay) -> str:
    return f"pull {strength:g} in {place}" + (", no weight decay" if decay == "replaced" else "")


def search_distances(results: Sequence[Result]) -> dict[str, float]:
    """The relative distance of the search's dense network and, if any, of the network that it is to match."""
    names = ("search_distance", "target_distance")
    found = {name: r["metrics"].get("distance_relative") for name, r in zip(names, results[1:], strict=False)}
    return {name: distance for name, distance in found.items() if distance is not None}


def pulled(recipe: Recipe, strength: float, decay: Decay) -> Recipe:
    """A recipe with the penalty, and with or without its weight decay; the recipe itself for strength 0."""
    if strength == 0:
        return recipe
    changes: dict[str, Any] = {"pull": strength}
    if decay == "replaced" and has_weight_decay(recipe.optimizer):
        changes["optimizer"] = recipe.optimizer.model_copy(update={"weight_decay": 0.0})
    return recipe.model_copy(update=changes)


def match(cell: Cell, control: Matched, strength: float) -> tuple[Setting | None, list[Setting]]:
    """The mask search of a control whose dense network has the distance of that with the penalty, or the closest.

    Distances are relative, and means over the cells that decide this one's choices. The learning rate is found by
    bisection of its logarithm; the iteration at which training stops by bisection within the epoch that passes the
    distance; the penalty towards 0, whose distance falls and rises again, step by step from the strength of the
    L2-to-init penalty.

    Returns:
        The setting, None until matching is done, or if the training with the penalty diverges; and the settings whose
        dense networks matching has needed so far, that with the penalty first.
    """
    cells = cell.choosing()
    tried: list[Setting] = [partial(_with_pull, strength=strength)]
    target = _mean_distance(cells, tried[0])
    if control == "weight-decay":
        at: Callable[[float], Setting] = _with_penalty
        propose = partial(_around, start=math.log(strength) if strength else -math.inf)
    elif control == "low-lr":
        rate = math.log(cell.search.optimizer.lr)
        at, propose = _with_rate, partial(_between, low=rate - math.log(1000), high=rate)
    else:
        tried.append(_unchanged)
        free = [cell.result_of(one.searched(0)) for one in cells]
        known = [result for result in free if result is not None]
        if target is None or len(known) < len(free):
            return None, tried
        end = cell.iterations(cell.search.steps, cell.search)
        epoch = _epoch_that_passes(known, target)
        if epoch is None:  # the penalty did not reduce the distance: there is nothing to stop
            return _unchanged, tried
        per_epoch = cell.steps_per_epoch(cell.search)
        at, propose = _stopped_at, partial(_between, low=epoch[0] * per_epoch, high=min(end, epoch[1] * per_epoch))
    if target is None:  # the first candidate does not depend on it
        return None, [*tried, at(propose([], math.nan))]
    if math.isinf(target):
        return None, tried
    reached: list[tuple[float, float]] = []
    while len(reached) < MAX_CANDIDATES:
        number = propose(reached, target)
        tried.append(at(number))
        distance = _mean_distance(cells, tried[-1])
        if distance is None:
            return None, tried
        reached.append((number, distance))
        if abs(distance - target) <= MATCHED_WITHIN * target:
            break
    nearest, distance = min(reached, key=lambda pair: abs(pair[1] - target))
    return at(nearest) if math.isfinite(distance) else None, tried


def _between(reached: Reached, target: float, low: float, high: float) -> float:
    """The next number of a bisection, where the distance grows with the number."""
    for number, distance in reached:
        low, high = (number, high) if distance < target else (low, number)
    return (low + high) / 2


def _around(reached: Reached, target: float, start: float) -> float:
    """The next number of a compass search: around the best so far, the weaker side first, in steps that halve."""
    if not reached:
        return start
    best = min(reached, key=lambda pair: abs(pair[1] - target))[0]
    step = HALF_A_DECADE
    while True:
        for number in (best - step, best + step):
            if not any(math.isclose(number, known) for known, _ in reached):
                return number
        step /= 2


def _epoch_that_passes(free: Sequence[Result], target: float) -> tuple[float, float] | None:
    """The epochs between which free trainings reach a distance, in the mean; None for never.

    Any epoch if a training has no distances because it diverged.
    """
    distances = [relative_by_epoch(result) for result in free]
    if not all(distances):
        return 0, math.inf
    for epoch, there in enumerate(zip(*distances, strict=True)):
        if math.fsum(there) / len(there) >= target:
            return epoch, epoch + 1
    return None


def relative_by_epoch(training: Result) -> list[float]:
    """The relative distance after each epoch of a training; empty if it is not defined at the end."""
    end = training["metrics"]
    if not end.get("distance") or "distance_relative" not in end:
        return []
    scale = end["distance_relative"] / end["distance"]
    return [scale * distance for distance in training.get("epoch_distances", ())]


def _unchanged(cell: Cell) -> Cell:
    return cell


def _with_pull(cell: Cell, strength: float, anchor: Anchor = 0) -> Cell:
    """The cell whose mask search has the penalty, centred at its initialisation or elsewhere."""
    return cell.with_search(pulled(cell.search, strength, "kept"), anchor=anchor if strength else 0)


def _with_penalty(logarithm: float) -> Setting:
    """A penalty towards 0, whose strength has four digits, so that it can be written down."""
    return partial(_with_pull, strength=float(f"{math.exp(logarithm):.4g}"), anchor="zero")


def _with_rate(logarithm: float) -> Setting:
    """Another learning rate, of four digits, so that it can be written down."""
    rate = float(f"{math.exp(logarithm):.4g}")

    def change(cell: Cell) -> Cell:
        optimizer = cell.search.optimizer.model_copy(update={"lr": rate})
        return cell.with_search(cell.search.model_copy(update={"optimizer": optimizer}))

    return change


def _stopped_at(iteration: float) -> Setting:
    """Trainings that stop early."""
    return lambda cell: cell.with_search(cell.search, stop=max(1, round(iteration)))


def _mean_distance(cells: Sequence[Cell], setting: Setting) -> float | None:
    """The mean relative distance of a mask search's dense networks; None until all are done.

    Infinite if one has none, as after a divergence.
    """
    results = [cell.result_of(setting(cell).searched(0)) for cell in cells]
    known = [float(r["metrics"].get("distance_relative", math.inf)) for r in results if r is not None]
    return math.fsum(known) / len(known) if len(known) == len(results) else None
