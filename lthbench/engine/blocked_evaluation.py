"""The evaluation of a network trained by the blocked engine: on the graph of the linear interpolation path."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lthbench.engine.path_forward import Forward, forward_of
from lthbench.engine.path_weights import Networks
from lthbench.engine.policy import choose_path_engine
from lthbench.engine.trace import fuse


def blocked_evaluation(model: nn.Module, mask: Mapping[str, Tensor]) -> nn.Module:
    """What maps images [B, ...] to the logits [B, C] of a network as it is now, in evaluation mode.

    Normalisation is folded into convolutions over the kept weights. The network itself is returned where the policy
    does not choose the batch-blocked layout, or no such graph can be made of it. Later changes of weights are not seen.

    Args:
        mask: weight name -> bool tensor of its shape; pruned weights are 0 already, a weight without one is dense.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            state = model.state_dict()
            networks = Networks(state, state, torch.zeros(1, dtype=torch.float64), stacked_bytes=2 << 30)
            engine = choose_path_engine(
                networks,
                mask,
                lambda blocked: fuse(model, mask, trained_blocked=True) if blocked else None,
                trained_blocked=True,
            )
            if engine.method != "blocked":
                return model
            return _Folded(forward_of(engine, model, networks), engine.num_images)
    finally:
        model.train(training)


class _Folded(nn.Module):
    def __init__(self, forward: Forward, num_images: int) -> None:
        super().__init__()
        self._evaluate, self._num_images = forward, num_images

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, ...] to logits [B, C]."""
        return torch.cat([self._evaluate(few)[0] for few in images.split(self._num_images)])
