"""Hyperparameter sensitivity: one factor at a time, with the stability onset of each, so that measured onsets,
not names, class a recipe as early- or late-stable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from lthbench.experiments.cell import Cell
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Reading
from lthbench.experiments.stability import Onset
from lthbench.training.recipe import Recipe


class Sensitivity(Onset):
    """The dense accuracy, distance and onset of recipes that differ from the arm's in one value.

    Attributes:
        vary: path of a recipe's key, as `optimizer.lr`, -> its values.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "distance_relative", "onset_above", "onset")

    vary: Annotated[dict[str, tuple[Any, ...]], Field(min_length=1)]

    def readings(self, cell: Cell) -> Iterator[Reading]:
        for path, values in self.vary.items():
            for value in values:
                recipe = with_value(cell.recipe, path, value)
                varied = replace(cell, recipe=recipe, search=recipe, _masks={})
                name = f"{path} = {value}"
                yield Reading(varied.dense(), name, ACCURACY + DISTANCE, level=0)
                for reading in super().readings(varied):
                    yield replace(reading, variant=f"{name}: {reading.variant}")


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
