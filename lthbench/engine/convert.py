"""How layers are replaced: by a module in the place of the other, which keeps the very same tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def replace_modules(model: nn.Module, replacement: Callable[[nn.Module], nn.Module | None]) -> None:
    """Replace, in place, each module below `model` by what `replacement` returns for it; None leaves it.

    A module that is used in several places is replaced once. Names and order of parameters do not change.
    """
    made: dict[nn.Module, nn.Module | None] = {}
    for parent in list(model.modules()):
        for name, module in list(parent._modules.items()):
            if module is None:
                continue
            if module not in made:
                made[module] = replacement(module)
            if (new := made[module]) is not None:
                parent.register_module(name, new)


def with_tensors_of(old: nn.Module, new: Layer) -> Layer:
    """Give `new`, which was made without memory (on "meta"), the parameters, buffers and mode of `old`."""
    for name, parameter in old.named_parameters(recurse=False):
        new.register_parameter(name, parameter)
    for name, buffer in old.named_buffers(recurse=False):
        new.register_buffer(name, buffer, persistent=name not in old._non_persistent_buffers_set)
    return new.train(old.training)
