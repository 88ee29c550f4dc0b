"""Hyperparameter sensitivity: one factor at a time, with the stability onset of each, so that measured onsets,
not names, class a recipe as early- or late-stable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from lthbench.experiments.cell import Cell
from lthbench.experiments.controls import control
from lthbench.experiments.experiment import ACCURACY, DISTANCE, PrunedLevel, Reading
from lthbench.experiments.stability import Onset
from lthbench.training.recipe import Recipe

AS_IT_IS = "as it is"


class Sensitivity(Onset):
    """The dense accuracy, distance, onset and tickets of recipes that differ from the arm's in one value.

    Readings: of each recipe, named `KEY = VALUE`, or `as it is` for the arm's own: `RECIPE`, its dense network, with
    accuracies and distances; `RECIPE: barrier` and `RECIPE: onset`, as those of the onset; `RECIPE: ticket` and
    `RECIPE: reinit`, with accuracies and distances. How the recipes' proxies rank with their onsets, and which are
    early-stable, analysis/proxies.py says.

    Attributes:
        vary: path of a recipe's key, as `optimizer.lr`, -> its values; a key may hold a mapping, as `augment`.
        levels: levels at which each recipe's tickets and their reinitialisations are trained; none by default.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "distance_relative", "onset_above", "onset")

    vary: Annotated[dict[str, tuple[Any, ...]], Field(min_length=1)]
    levels: tuple[PrunedLevel, ...] = ()

    def readings(self, cell: Cell) -> Iterator[Reading]:
        recipes = {AS_IT_IS: cell.recipe}
        for path, values in self.vary.items():
            recipes |= {f"{path} = {as_text(value)}": with_value(cell.recipe, path, value) for value in values}
        for name, recipe in recipes.items():
            varied = replace(cell, recipe=recipe, search=recipe, _masks={})
            yield Reading(varied.dense(), name, ACCURACY + DISTANCE, level=0)
            for reading in super().readings(varied):
                yield replace(reading, variant=f"{name}: {reading.variant}")
            for level in self.levels:
                for variant, task in (
                    ("ticket", varied.ticket(level)),
                    ("reinit", control(varied, "reinit", level, 0)),
                ):
                    yield Reading(task, f"{name}: {variant}", ACCURACY + DISTANCE, level=level)


def as_text(value: Any) -> str:
    """A value of a recipe for people: `0.1`, `adamw, lr 0.001`, `none` for an empty mapping."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(str(v) if key == "name" else f"{key} {as_text(v)}" for key, v in value.items()) or "none"


def with_value(recipe: Recipe, path: str, value: Any) -> Recipe:
    """A recipe with one key changed.

    Raises:
        ValueError: the path leads to no key of a recipe, or the value is none for it.
    """
    content: dict[str, Any] = recipe.model_dump(mode="json")
    node = content
    *parents, last = path.split(".")
    for parent in parents:
        if not isinstance(node.get(parent), dict):
            raise ValueError(f"vary names {path}, which is no key of a recipe; write optimizer.lr, for example")
        node = node[parent]
    node[last] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"vary: {path} = {value}: {error.errors()[0]['msg']}") from error
