"""A small problem for each family of kernels, checked against a result that is known by other means."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.ops import reference
from lthbench.ops._library import kernels_available
from lthbench.ops.interpolation import count_errors, lerp_stacked
from lthbench.ops.optimizers import MaskedSGD
from lthbench.ops.pruning import prune_lowest

SHAPE = (37, 29)


def run_families(device: torch.device | str) -> dict[str, tuple[bool, str]]:
    """For each family: whether its result is right on this device, and what computed it ("kernel" or "reference")."""
    chance = torch.Generator().manual_seed(0)
    weights, other = (torch.randn(SHAPE, generator=chance).to(device) for _ in range(2))
    mask = (torch.rand(SHAPE, generator=chance) < 0.5).to(device)
    form = "kernel" if kernels_available(device) else "reference"
    checks = {"masked update": _update, "threshold and masks": _threshold, "interpolation": _interpolation}
    return {family: (_holds(check, weights, other, mask), form) for family, check in checks.items()}


def _holds(check: Callable[[Tensor, Tensor, Tensor], bool], weights: Tensor, other: Tensor, mask: Tensor) -> bool:
    try:
        return check(weights, other, mask)
    except RuntimeError:  # a kernel that was not built for this device, say
        return False


def _update(weights: Tensor, gradients: Tensor, mask: Tensor) -> bool:
    """MaskedSGD has the bits of torch.optim.SGD with the mask applied after each step, by the optimizer cache if it
    can."""
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "nesterov": True}
    ours, theirs = (nn.Parameter(weights * mask) for _ in range(2))
    masked = MaskedSGD([ours], **options, masks={ours: mask})  # type: ignore[arg-type]
    stock = torch.optim.SGD([theirs], **options, foreach=False)  # type: ignore[arg-type]
    for _ in range(2):
        ours.grad, theirs.grad = gradients.clone(), gradients.clone()
        masked.step()
        stock.step()
        with torch.no_grad():
            for t in (theirs, stock.state[theirs]["momentum_buffer"]):
                t.masked_fill_(~mask, 0.0)
    return torch.equal(ours, theirs) and bool(masked._caches) is kernels_available(weights.device)


def _threshold(weights: Tensor, other: Tensor, mask: Tensor) -> bool:
    """The masks are those of a stable sort, ties included."""
    scores = weights.round(decimals=1)
    num_pruned = int(mask.sum()) // 3
    expected, threshold, _ = reference.prune_lowest([scores], [mask], num_pruned, True)
    pruned = prune_lowest([scores], [mask], num_pruned)
    return torch.equal(pruned.masks[0], expected[0]) and pruned.threshold == threshold


def _interpolation(a: Tensor, b: Tensor, mask: Tensor) -> bool:
    """The networks lie on the path, and their losses and errors are those of torch."""
    alphas = torch.tensor([0.0, 0.25, 1.0], device=a.device)
    line = lerp_stacked([a], [b], alphas)[0]
    labels = torch.arange(len(a), device=a.device) % a.shape[1]
    counts = count_errors(line, labels)
    losses = torch.stack([F.cross_entropy(z.double(), labels, reduction="sum") for z in line])
    errors = (line.argmax(2) != labels).sum(1)
    exact = torch.equal(line[0], a) and torch.equal(line[2], b) and torch.equal(counts.num_errors, errors)
    return exact and torch.allclose(line[1], a.lerp(b, 0.25)) and torch.allclose(counts.loss_sum, losses)
