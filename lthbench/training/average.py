"""The exponential moving average of a network's weights and normalisation statistics over its training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Average:
    """a <- decay a + (1 - decay) w after each step, from the weights that training starts from (`values`).

    Running statistics are averaged as weights are; counters are those of the last step. A pruned weight is 0 all
    along, so its average is exactly 0 too.

    Source: Polyak & Juditsky 1992; statistics averaged as in timm's ModelEmaV2.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: t for name, t in model.state_dict().items() if t.is_floating_point()}
        self.values = {name: t.clone() for name, t in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take one step's weights in."""
        torch._foreach_lerp_(list(self.values.values()), list(self._live.values()), 1 - self.decay)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Go on from the average of a checkpoint."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model the averaged weights and statistics."""
        for name, value in self.values.items():
            self._live[name].copy_(value)
