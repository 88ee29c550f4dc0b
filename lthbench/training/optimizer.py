"""The masked optimizer that a recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lthbench.ops.masked_optimizer import MaskedOptimizer
from lthbench.ops.masking import mask_optimizer
from lthbench.ops.optimizers import MaskedAdamW, MaskedSGD
from lthbench.training.recipe import SGD, AdamW, OwnOptimizer, Recipe

# Class of `Recipe.optimizer`, whose fields are the arguments -> optimizer.
MASKED: dict[type, type[MaskedOptimizer]] = {SGD: MaskedSGD, AdamW: MaskedAdamW}


def make_optimizer(
    recipe: Recipe, parameters: Mapping[str, nn.Parameter], mask: Mapping[str, Tensor], anchors: Mapping[str, Tensor]
) -> torch.optim.Optimizer:
    """Make the optimizer of those parameters that are trained (`requires_grad`).

    Args:
        mask: name -> bool, True where a weight survives; a name without one is dense.
        anchors: name -> initial weights, the centre of the penalty `recipe.pull`.
    """
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    masks: dict[Tensor, Tensor] = {
        trained[name]: _like(m, trained[name]) for name, m in mask.items() if name in trained
    }
    anchors = anchors if recipe.pull else {}
    begun: dict[Tensor, Tensor] = {
        trained[name]: _like(a, trained[name]) for name, a in anchors.items() if name in trained
    }
    if isinstance(recipe.optimizer, OwnOptimizer):
        own = recipe.optimizer
        optimizer = own.torch_class(list(trained.values()), lr=own.lr, **own.options)  # type: ignore[call-arg]
        return mask_optimizer(optimizer, masks, begun, recipe.pull)
    options = recipe.optimizer.model_dump(exclude={"name"})
    if recipe.pull:
        options["pull"] = recipe.pull
    make: Any = MASKED[type(recipe.optimizer)]
    masked: MaskedOptimizer = make(list(trained.values()), **options, masks=masks, anchors=begun)
    return masked


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, bool | int | float]]:
    """What an optimizer's state consists of, by `INDEX.NAME`: tensors and numbers.

    Raises:
        TypeError: it holds something else, which no checkpoint can.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, bool | int | float] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            elif isinstance(value, bool | int | float):
                numbers[f"{index}.{name}"] = value
            elif value is not None:
                raise TypeError(
                    f"the optimizer's state has {name}, a {type(value).__name__}; checkpoints hold tensors and numbers"
                )
    return tensors, numbers


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, bool | int | float]
) -> None:
    """Go back to what `optimizer_state` gave."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in (*numbers.items(), *tensors.items()):
        index, _, slot = name.partition(".")
        state.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` with the parameter's device and memory layout."""
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
