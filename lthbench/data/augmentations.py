"""Own augmentations: changes to training images that plugins add to those of `Augment` (no torch here)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lthbench import registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Augmentation = Callable[[Tensor, np.random.Generator], Tensor]
else:
    Augmentation = Any

AUGMENTATIONS: dict[str, Augmentation] = {}


def register_augmentation(name: str) -> Callable[[Augmentation], Augmentation]:
    """Add an augmentation, which a suite names by `augment: {own: [NAME]}`.

    The function is given the levels of a whole batch, float32 [B, C, H, W] from 0 to 255 on the batch's device, after
    all others that change values and before normalisation, and this step's generator on the host, from which alone it
    may draw; it returns levels of the same shape.

    Raises:
        PluginError: the name is taken, or no plugin is being loaded.
    """

    def register(function: Augmentation) -> Augmentation:
        registry.add("augmentation", AUGMENTATIONS, name, function)
        return function

    return register


def apply_augmentation(name: str, levels: Tensor, rng: np.random.Generator) -> Tensor:
    """Do what an own augmentation does.

    Raises:
        ValueError: it gave something else than levels of the same shape.
    """
    import torch

    changed = AUGMENTATIONS[name](levels, rng)
    if not isinstance(changed, torch.Tensor) or changed.shape != levels.shape:
        found = f"shape {tuple(changed.shape)}" if isinstance(changed, torch.Tensor) else type(changed).__name__
        raise ValueError(
            f"{registry.told('augmentation', name)} made {found} of levels {tuple(levels.shape)}; it must return "
            "levels of the shape that it was given"
        )
    return changed.to(levels.device, levels.dtype)
