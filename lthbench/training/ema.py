"""The exponential moving average of a network's weights and normalisation statistics over its training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """a <- decay a + (1 - decay) w after each step, from the weights that training starts from (`values`).

    Running statistics are averaged as weights are; counters are those of the last step. A pruned weight is 0 all
    along, so its average is exactly 0 too.

    The step is torch's own. Its `AveragedModel` begins with a copy of the weights after the first step instead, so
    that results would differ, and averages counters too.

    Source: Polyak & Juditsky 1992; statistics averaged as in timm's ModelEmaV2.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._step = get_ema_multi_avg_fn(decay)
        self._live = {name: t for name, t in model.state_dict().items() if t.is_floating_point()}
        self.values = {name: t.clone() for name, t in self._live.items()}

    def update(self) -> None:
        """Average in the weights after a step."""
        self._step(list(self.values.values()), list(self._live.values()), None)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Continue from the average in a checkpoint."""
        for name, value in self.values.items():
            value.copy_(values[name])

    @torch.no_grad()
    def copy_to_model(self) -> None:
        """Give the model the averaged weights and statistics."""
        for name, value in self.values.items():
            self._live[name].copy_(value)
