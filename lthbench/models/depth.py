"""Stochastic depth (Huang et al. 2016): in training, each image skips the branch of some layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """A branch that an image skips with probability p in training, scaled to keep its mean.

    It draws nothing itself: `kept`, float32 [B] of 0 and 1 / (1 - p), is set before each forward pass, so that
    the same images skip it however a batch is divided.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Activations [B, ...] to the same shape."""
        if not self.training or not self.p:
            return x
        if self.kept is None:
            raise RuntimeError("a model with stochastic depth is trained with draws for each batch: see draw_kept")
        return x * self.kept.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def stochastic_layers(model: nn.Module) -> list[StochasticDepth]:
    """Return the layers that need draws in training, in the order of the forward pass."""
    return [module for module in model.modules() if isinstance(module, StochasticDepth) and module.p > 0]


def draw_kept(
    layers: list[StochasticDepth], num_images: int, seed: int, device: torch.device, places: np.ndarray | None = None
) -> list[Tensor]:
    """Draw for each layer which images of a batch keep it: float32 [num_images] each, on `device`.

    The draws are made on the host, so they are the same on every device, and for the whole batch, also where only
    those at `places`, int64 [K], are wanted.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(len(layers), num_images)
    for layer, row in zip(layers, drawn, strict=True):
        row.bernoulli_(1 - layer.p, generator=generator).div_(1 - layer.p)
    if places is not None:
        drawn = drawn[:, torch.from_numpy(places)]
    return list(drawn.to(device, non_blocking=True))
