"""Hyperparameter sensitivity: one factor at a time, with the stability onset of each, so that measured onsets, not
names, classify a recipe as early- or late-stable."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from lthbench.experiments.cell import Cell, Result
from lthbench.experiments.controls import control
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Measurement, PrunedLevel
from lthbench.experiments.stability import Onset, under
from lthbench.fault import Fault, validation_faults
from lthbench.training.recipe import Recipe

AS_IT_IS = "as it is"


class Sensitivity(Onset):
    """The dense accuracy, distance, onset and tickets of recipes that differ from the arm's in one value.

    Measurements: of each recipe, named `KEY = VALUE`, or `as it is` for the arm's own: `RECIPE`, its dense network,
    with accuracies and distances; `RECIPE: barrier` and `RECIPE: onset`, as those of the onset, and `stable_earlier`: 1
    where this replicate's onset, as a share of training, is before that of the arm's own recipe, -1 where it is after
    it, 0 where both are one point of the grid, missing where the stability of either is not monotone;
    `RECIPE: ticket` and `RECIPE: reinit`, with accuracies and distances. Recipes with 1 in every replicate are
        early-stable with regard to a late-stable arm.

    Attributes:
        vary: path of a recipe's key, as `optimizer.lr`, -> its values; a key may hold a mapping, as `augment`.
        levels: levels at which each recipe's tickets and their reinitialisations are trained; none by default.
    """

    shown: ClassVar[tuple[str, ...]] = (
        "test_accuracy",
        "distance_relative",
        "onset_above_share",
        "onset_share",
        "onset_monotone",
        "stable_earlier",
    )
    variants: ClassVar = tuple(
        recipe + of
        for recipe in ("as it is", "* = *")
        for of in ("", ": ticket", ": reinit", *(f": {variant}" for variant in Onset.variants))
    )
    metrics: ClassVar = (*dict.fromkeys((*ACCURACY, *DISTANCE, *Onset.metrics)), "stable_earlier")

    vary: Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], Field(min_length=1)]
    levels: tuple[PrunedLevel, ...] = ()

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        recipes = {AS_IT_IS: cell.recipe}
        for path, values in self.vary.items():
            recipes |= {f"{path} = {as_text(value)}": with_value(cell.recipe, path, value) for value in values}
        varied = {name: replace(cell, recipe=r, search=r) for name, r in recipes.items()}
        for name, other in varied.items():
            yield Measurement(other.dense(), name, ACCURACY + DISTANCE, level=0)
            for measurement in super().measurements(other):
                yield replace(measurement, variant=f"{name}: {measurement.variant}", selects=False)
            yield from self._compared(f"{name}: onset", other, varied[AS_IT_IS])
            for level in self.levels:
                tickets = {"ticket": other.ticket(level), "reinit": control(other, "reinit", level, 0)}
                for variant, task in tickets.items():
                    yield Measurement(task, f"{name}: {variant}", ACCURACY + DISTANCE, level=level)

    def later(self) -> Iterator[tuple[str, int]]:
        for name in (AS_IT_IS, *(f"{path} = {as_text(value)}" for path, vs in self.vary.items() for value in vs)):
            for variant, level in super().later():
                yield f"{name}: {variant}", level

    def _compared(self, variant: str, cell: Cell, own: Cell) -> Iterator[Measurement]:
        """Whether a recipe is stable earlier than the arm's own, once both are known."""
        for statistics in self.statistics:
            found, reference = (self.bisect(c, statistics)[1] for c in (cell, own))
            if cell is not own and found is not None and reference is not None:
                # A share of two lengths is rounded to an iteration of each.
                rounding = sum(0.5 / c.iterations(c.recipe.steps) for c in (cell, own))
                compute = earlier(found, reference, rounding)
                yield Measurement(cell.dense(), under(variant, statistics), level=0, compute=compute)

    def grid_faults(self, cell: Cell) -> Iterator[Fault]:
        faults = list(super().grid_faults(cell))
        for path, values in self.vary.items():
            for position, value in enumerate(values):
                found = list(value_faults(cell, path, value))
                yield from (fault.under("vary", path, position) for fault in found)
                if not found and not faults:
                    varied = with_value(cell.recipe, path, value)
                    name = f"{cell.arm} with {path} = {as_text(value)}"
                    faults = list(super().grid_faults(replace(cell, arm=name, recipe=varied)))
        yield from faults


def earlier(
    found: Mapping[str, float], own: Mapping[str, float], rounding: float
) -> Callable[[Sequence[Result]], dict[str, float]]:
    """A `compute` of whether an onset is before another (1), at the same share of training (0) or after it (-1)."""
    if 0.0 in (found.get("onset_monotone"), own.get("onset_monotone")):
        return lambda results: {}
    first, second = (onset.get("onset_share", math.inf) for onset in (found, own))
    sign = float((first + rounding < second) - (first > second + rounding))
    return lambda results: {"stable_earlier": sign}


def as_text(value: Any) -> str:
    """A recipe's value as text: `0.1`, `adamw, lr 0.001`, `none` for an empty mapping."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_text, value))}]"
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(str(v) if key == "name" else f"{key} {as_text(v)}" for key, v in value.items()) or "none"


def with_value(recipe: Recipe, path: str, value: Any) -> Recipe:
    """A recipe with one key changed.

    Raises:
        ValidationError: the path names no key of a recipe, or the value is not valid for it.
    """
    return Recipe.model_validate(_with_value(recipe, path, value), strict=True)


def value_faults(cell: Cell, path: str, value: Any) -> Iterator[Fault]:
    """Why a value is not valid for a key of the cell's recipe, as faults at the value."""
    content = _with_value(cell.recipe, path, value)

    def written(key: tuple[str | int, ...]) -> str:
        node: Any = content
        for part in key:
            node = node[part]
        return as_text(node)

    try:
        faults = list(Recipe.model_validate(content, strict=True).faults(cell.data))
    except ValidationError as error:
        faults = validation_faults(error, Recipe, content, written)
    for fault in faults:
        key = ".".join(map(str, fault.path))
        yield Fault((), fault.message if key == path else f"{key}: {fault.message}")


def _with_value(recipe: Recipe, path: str, value: Any) -> dict[str, Any]:
    """A recipe's content with another value under a path; a path that does not exist gives an unknown key."""
    content: dict[str, Any] = recipe.model_dump()
    node = content
    *parents, last = path.split(".")
    for parent in parents:
        if not isinstance(node.get(parent), dict):
            node[parent] = {}
        node = node[parent]
    node[last] = value
    return content
