"""A suite whose trainings are by another engine than its recipes name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from lthbench.options import Option
from lthbench.suite.schema import Pair, Suite
from lthbench.suite.yaml_tree import SuiteError
from lthbench.training.recipe import Engine, Recipe


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """What trains in place of what recipes name."""

    engine: Annotated[
        Engine | None,
        Option(
            "Train by this engine (torch, blocked) where it applies; other keys.", "--engine", envvar="LTHBENCH_ENGINE"
        ),
    ] = None


def with_engine(suite: Suite, engine: Engine | None) -> Suite:
    """The suite with an engine in every recipe that it applies to; None leaves what the recipes name.

    The blocked engine applies to recipes in float32 of networks that have layers for it; others stay as they are.

    Raises:
        SuiteError: it applies to none.
    """
    if engine is None:
        return suite
    changed = _changed(suite, engine)
    recipes = (recipe for pair in changed.pairs.values() for recipe in pair.recipes)
    if engine == "blocked" and not any(recipe.engine == "blocked" for recipe in recipes):
        raise SuiteError("--engine blocked: no network of the suite has layers for it; leave it out")
    return changed


def by_every_engine(suite: Suite) -> Iterator[Suite]:
    """The suite as it is, and as `with_engine` makes it, without repetitions."""
    torchs, blocked = _changed(suite, "torch"), _changed(suite, "blocked")
    yield suite
    yield from (one for one in (torchs, blocked) if one != suite)


def _changed(suite: Suite, engine: Engine) -> Suite:
    pairs = {
        name: _with_recipes(pair, engine) if engine == "torch" or _has_blocked_layers(pair) else pair
        for name, pair in suite.pairs.items()
    }
    return suite.with_pairs_by(engine, pairs)


def _with_recipes(pair: Pair, engine: Engine) -> Pair:
    def changed(recipe: Recipe) -> Recipe:
        applies = engine == "torch" or recipe.precision == "float32"
        return recipe.model_copy(update={"engine": engine}) if applies else recipe

    arms = {
        name: arm.model_copy(update={"recipe": changed(arm.recipe), "search": changed(arm.search)})
        for name, arm in pair.arms.items()
    }
    return pair.model_copy(update={"arms": arms})


def _has_blocked_layers(pair: Pair) -> bool:
    # Imported here because only who names an engine needs torch to read a suite.
    import torch

    from lthbench.engine.blocked_training import has_blocked_layers
    from lthbench.models.build import build

    with torch.device("meta"):
        return has_blocked_layers(build(pair.model, pair.data.info.image_shape, pair.data.info.num_classes))
