"""Pruning criteria: what is pruned first, as a score of each weight; the lowest go (no torch here)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lthbench import registry

if TYPE_CHECKING:
    from torch import Tensor


class Layer(NamedTuple):
    """A prunable layer of a trained network, as a criterion sees it; all tensors have the weight's shape.

    Attributes:
        name: of the weight.
        weight: after training; pruned ones are 0.
        start: what training started from, so that weight - start is how far each weight was moved.
        mask: bool, True where a weight survives so far. Scores of the others are not looked at.
        gradient: of the mean loss over some train images at `weight`, in evaluation mode; None where the criterion
            asked for none.
    """

    name: str
    weight: Tensor
    start: Tensor
    mask: Tensor
    gradient: Tensor | None


@dataclass(frozen=True)
class Criterion:
    """A score of a layer's weights, and over how many train images the gradients are taken that it needs."""

    score: Callable[[Layer], Tensor]
    gradient_images: int = 0


CRITERIA: dict[str, Criterion] = {
    "magnitude": Criterion(lambda layer: layer.weight.abs()),
    "movement": Criterion(lambda layer: layer.weight.abs() - layer.start.abs()),
}


def register_criterion(
    name: str, *, gradient_images: int = 0
) -> Callable[[Callable[[Layer], Tensor]], Callable[[Layer], Tensor]]:
    """Add a pruning criterion, which a suite names by `pruning: {criterion: NAME}`.

    The function returns the scores of a `Layer`, a tensor of the weight's shape; those with the lowest scores are
    pruned, over all layers of a threshold (`scope`). It must draw nothing.

    Args:
        gradient_images: of so many train images, of each class its share, `Layer.gradient` is the mean.

    Raises:
        PluginError: the name is taken, or no plugin is being loaded.
    """

    def register(score: Callable[[Layer], Tensor]) -> Callable[[Layer], Tensor]:
        registry.add("criterion", CRITERIA, name, Criterion(score, gradient_images))
        return score

    return register


def scores_of(name: str, layer: Layer) -> Tensor:
    """The scores of a layer's weights by a criterion, float32 for own ones.

    Raises:
        ValueError: a plugin's criterion gave another shape, or NaN for a surviving weight.
    """
    score = CRITERIA[name].score(layer)
    if registry.owner("criterion", name) is None:
        return score
    import torch

    told = f"{registry.told('criterion', name)}: its scores of {layer.name}"
    if not isinstance(score, torch.Tensor) or score.shape != layer.weight.shape:
        found = f"shape {tuple(score.shape)}" if isinstance(score, torch.Tensor) else f"type {type(score).__name__}"
        raise ValueError(f"{told} have {found}, expected {tuple(layer.weight.shape)}; return a number for each weight")
    score = score.detach().to(layer.weight.device, torch.float32)
    if num_nan := int((score.isnan() & layer.mask).sum()):
        raise ValueError(f"{told} are NaN for {num_nan:,} surviving weights; return a number for each weight")
    return score
