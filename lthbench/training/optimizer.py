"""The masked optimizer that a recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lthbench.ops.masked_optimizer import MaskedOptimizer
from lthbench.ops.optimizers import MaskedAdamW, MaskedSGD
from lthbench.training.recipe import SGD, AdamW, Recipe

# Class of `Recipe.optimizer`, whose fields are the arguments -> optimizer.
OPTIMIZERS: dict[type, type[MaskedOptimizer]] = {SGD: MaskedSGD, AdamW: MaskedAdamW}


def make_optimizer(
    recipe: Recipe, parameters: Mapping[str, nn.Parameter], mask: Mapping[str, Tensor], anchors: Mapping[str, Tensor]
) -> MaskedOptimizer:
    """Make the optimizer of those parameters that are trained (`requires_grad`).

    Args:
        mask: name -> bool, True where a weight survives; a name without one is dense.
        anchors: name -> initial weights, the centre of the penalty `recipe.pull`.
    """
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    options = recipe.optimizer.model_dump(exclude={"name"})
    if recipe.pull:
        options["pull"] = recipe.pull
    else:
        anchors = {}
    make: Any = OPTIMIZERS[type(recipe.optimizer)]
    optimizer: MaskedOptimizer = make(
        list(trained.values()),
        **options,
        masks={trained[name]: _like(m, trained[name]) for name, m in mask.items() if name in trained},
        anchors={trained[name]: _like(a, trained[name]) for name, a in anchors.items() if name in trained},
    )
    return optimizer


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` with the parameter's device and memory layout."""
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
