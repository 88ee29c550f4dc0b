"""Masks for any optimizer of torch's kind, from without; `optimizers.py` has those whose step knows of masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def mask_optimizer(
    optimizer: torch.optim.Optimizer,
    masks: Mapping[Tensor, Tensor],
    anchors: Mapping[Tensor, Tensor],
    pull: float = 0.0,
) -> torch.optim.Optimizer:
    """Mask any optimizer of torch's kind from without, and return it.

    Before a step the gradients of pruned weights become 0 and pull * (w - anchor) is added to those of the others;
    after it pruned weights, and whatever of the state has their shape, are exactly +0.

    Args:
        masks, anchors, pull: as for `MaskedSGD`.
    """
    pruned = {p: ~m for p, m in masks.items()}

    @torch.no_grad()
    def before(*_: Any) -> None:
        for p, a in anchors.items() if pull else ():
            if p.grad is not None:
                p.grad.add_(p - a, alpha=pull)
        for p, gone in pruned.items():
            if p.grad is not None:
                p.grad.masked_fill_(gone, 0.0)

    @torch.no_grad()
    def after(*_: Any) -> None:
        for p, gone in pruned.items():
            p.masked_fill_(gone, 0.0)
            for value in optimizer.state.get(p, {}).values():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    value.masked_fill_(gone, 0.0)

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
    after()
    return optimizer
