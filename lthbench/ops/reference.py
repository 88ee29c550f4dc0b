"""The operators in plain PyTorch: the reference of the kernels' tests, and what runs where there are no kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd


def prune_lowest(
    scores: Sequence[Tensor], masks: Sequence[Tensor], num_pruned: int, magnitude: bool
) -> tuple[list[Tensor], float, int]:
    """One group of `lthbench.ops.prune_lowest`: the new masks, the threshold and the number of NaN scores."""
    if not scores:
        return [], float("-inf"), 0
    flat_mask = torch.cat([m.reshape(-1) for m in masks])
    flat = torch.cat([s.detach().reshape(-1).float() for s in scores])
    survivors = flat_mask.nonzero().reshape(-1)
    values = flat[survivors]
    if magnitude:
        values = values.abs()
    num_nan = int(values.isnan().sum())
    # A stable ascending sort puts NaN last and keeps equal scores in flat order: the rule, word for word.
    order = torch.argsort(values, stable=True)[:num_pruned]
    flat_mask[survivors[order]] = False
    threshold = float(values[order[-1]]) if num_pruned else float("-inf")
    pieces = flat_mask.split([m.numel() for m in masks])
    return [piece.reshape(m.shape).clone() for piece, m in zip(pieces, masks, strict=True)], threshold, num_nan


def gradients(group: dict[str, Any], anchors: Mapping[Tensor, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The group's parameters that have a gradient, and those gradients, with the L2-to-init penalty's."""
    params = [p for p in group["params"] if p.grad is not None]
    grads = [p.grad for p in params]
    anchored = [i for i, p in enumerate(params) if p in anchors] if group["pull"] else []
    if anchored:
        pulls = torch._foreach_sub([params[i] for i in anchored], [anchors[params[i]] for i in anchored])
        pulled = torch._foreach_add([grads[i] for i in anchored], pulls, alpha=group["pull"])
        for i, g in zip(anchored, pulled, strict=True):
            grads[i] = g
    return params, grads


def sgd_step(group: dict[str, Any], state: dict[Tensor, Any], anchors: Mapping[Tensor, Tensor]) -> None:
    """SGD on one parameter group, before the masks are applied."""
    params, grads = gradients(group, anchors)
    if not params:
        return
    buffers = [state[p].get("momentum_buffer") if p in state else None for p in params]
    sgd(
        params, grads, buffers, foreach=True, fused=False, weight_decay=group["weight_decay"],
        momentum=group["momentum"], lr=group["lr"], dampening=group["dampening"],
        nesterov=group["nesterov"], maximize=False,
    )  # fmt: skip
    if group["momentum"]:
        for p, buffer in zip(params, buffers, strict=True):
            state[p]["momentum_buffer"] = buffer


def adamw_step(group: dict[str, Any], state: dict[Tensor, Any], anchors: Mapping[Tensor, Tensor]) -> None:
    """AdamW on one parameter group, before the masks are applied."""
    params, grads = gradients(group, anchors)
    if not params:
        return
    for p in params:
        start_adamw(p, state, group["capturable"])
    states = [state[p] for p in params]
    adamw(
        params, grads, [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states], [],
        [s["step"] for s in states], foreach=True, capturable=group["capturable"], fused=False, amsgrad=False,
        beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"],
        weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
    )  # fmt: skip


def start_adamw(p: Tensor, state: dict[Tensor, Any], capturable: bool) -> None:
    """Create a parameter's AdamW state if it has none, and put its step counter where it belongs.

    That is on the host, or on the device if `capturable`, wherever a checkpoint was loaded to.
    """
    place = p.device if capturable else torch.device("cpu")
    if state[p]:
        state[p]["step"] = torch.as_tensor(state[p]["step"]).to(place, torch.float32)
    else:
        state[p] = {
            "step": torch.zeros((), dtype=torch.float32, device=place),
            "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
        }


def squared_distance(anchors: Mapping[Tensor, Tensor], pruned: Mapping[Tensor, Tensor]) -> Tensor:
    """Squared L2 distance of the surviving anchored weights from their anchors (float64, shape [])."""
    total = torch.zeros((), dtype=torch.float64)
    for p, a in anchors.items():
        delta = (p - a).double()
        if p in pruned:
            delta = delta.masked_fill(pruned[p], 0.0)
        total += delta.square().sum().cpu()
    return total
