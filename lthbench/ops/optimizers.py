"""Masked optimizers: the update, the L2-to-init penalty, the mask and the learning distance.

One step of `MaskedSGD` for a weight w with gradient g, momentum buffer b, mask m, anchor a (its initial value):

    g <- g + pull * (w - a);  g <- g + weight_decay * w
    b <- momentum * b + (1 - dampening) * g          (b = g at the first step)
    w <- m * (w - lr * (nesterov ? g + momentum * b : b)),    b <- m * b
    distance^2 = sum over anchored weights of m * (w - a)^2

Pruned weights and their optimizer state are exactly +0 after every step, whatever their gradients are. With the
compiled kernels all parameters of a group are updated in one pass; the plain PyTorch reference gives the same bits
for SGD.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lthbench.ops import reference
from lthbench.ops._fake import shape_only
from lthbench.ops.masked_optimizer import MaskedOptimizer
from lthbench.ops.optimizer_cache import GroupCache


class MaskedSGD(MaskedOptimizer):
    """SGD on the surviving weights (equation above); without masks and penalty it is `torch.optim.SGD`, bit for bit.

    Args:
        params: parameters or parameter groups, as for torch.optim.
        lr, momentum, dampening, weight_decay, nesterov: as for torch.optim.SGD; weight decay is coupled. On CUDA
            lr may be a float32 tensor on the device, so that a captured graph follows its schedule.
        masks: parameter -> bool tensor of its shape, True where it survives; parameters without one are dense.
        anchors: parameter -> its initial value, the centre of the penalty and of the distance, in separate memory.
        pull: lambda of the L2-to-init penalty (lambda/2) ||m (w - anchor)||^2, per group.

    Raises:
        ValueError: a rate is NaN, infinite or negative, a mask or an anchor does not fit its parameter, or an anchor
            or another parameter shares a parameter's memory. `step` raises RuntimeError for rates that were set since.
        TypeError: masks or anchors are no mapping from parameters to tensors.

    >>> import torch, lthbench
    >>> layer = torch.nn.Linear(4, 3)  # weight [3, 4], bias [3]
    >>> mask = torch.arange(12).reshape(3, 4) % 3 == 0  # bool [3, 4], True survives
    >>> optimizer = lthbench.MaskedSGD(layer.parameters(), lr=0.1, momentum=0.9, masks={layer.weight: mask})

    Two steps of it are equivalent, here in every bit, to

    >>> plain = torch.nn.Linear(4, 3)
    >>> plain.load_state_dict(layer.state_dict())
    <All keys matched successfully>
    >>> reference = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    >>> images = torch.randn(8, 4)  # [B, 4]
    >>> for _ in range(2):
    ...     for network, its in ((layer, optimizer), (plain, reference)):
    ...         its.zero_grad()
    ...         network(images).square().mean().backward()
    ...         its.step()
    ...     with torch.no_grad():
    ...         for tensor in (plain.weight, reference.state[plain.weight]["momentum_buffer"]):
    ...             tensor *= mask
    >>> torch.equal(layer.weight, plain.weight), layer.weight[~mask].count_nonzero().item()
    (True, 0)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        masks: Mapping[Tensor, Tensor] | None = None,
        anchors: Mapping[Tensor, Tensor] | None = None,
        pull: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "pull": pull,
        }  # fmt: skip
        super().__init__(params, defaults, masks, anchors)

    def _state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def _cached_step(self, cache: GroupCache, group: dict[str, Any]) -> Tensor | float | None:
        return cache.sgd(group)

    def _reference_step(self, group: dict[str, Any]) -> None:
        reference.sgd_step(group, self.state, self.anchors)


class MaskedAdamW(MaskedOptimizer):
    """AdamW with decoupled weight decay on the surviving weights; the L2-to-init penalty is part of the gradient.

    Args:
        params: parameters or parameter groups, as for torch.optim.
        lr, betas, eps, weight_decay: as for torch.optim.AdamW.
        capturable: count the steps on the device, so that a CUDA graph can capture `step`.
        masks, anchors, pull: as for `MaskedSGD`, which raises the same errors.

    >>> import torch, lthbench
    >>> layer = torch.nn.Linear(4, 3)  # weight [3, 4], bias [3]
    >>> mask = torch.arange(12).reshape(3, 4) % 3 == 0  # bool [3, 4], True survives
    >>> plain = torch.nn.Linear(4, 3)
    >>> plain.load_state_dict(layer.state_dict())
    <All keys matched successfully>
    >>> optimizer = lthbench.MaskedAdamW(layer.parameters(), lr=0.01, weight_decay=0.1, masks={layer.weight: mask})

    A step of it is equivalent, up to rounding, to

    >>> reference = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.1)
    >>> images = torch.randn(8, 4)  # [B, 4]
    >>> for network, its in ((layer, optimizer), (plain, reference)):
    ...     network(images).square().mean().backward()
    ...     its.step()
    >>> with torch.no_grad():
    ...     for tensor in (plain.weight, *(reference.state[plain.weight][m] for m in ("exp_avg", "exp_avg_sq"))):
    ...         tensor *= mask
    >>> torch.allclose(layer.weight, plain.weight), layer.weight[~mask].count_nonzero().item()
    (True, 0)
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        capturable: bool = False,
        masks: Mapping[Tensor, Tensor] | None = None,
        anchors: Mapping[Tensor, Tensor] | None = None,
        pull: float = 0.0,
    ) -> None:
        if isinstance(lr, Tensor) and not capturable:
            raise ValueError("lr is a tensor, which needs capturable=True; give a float otherwise")
        defaults = {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "capturable": capturable, "pull": pull,
        }  # fmt: skip
        super().__init__(params, defaults, masks, anchors)

    def _state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _start(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p.grad is not None or self.state.get(p):
                reference.start_adamw(p, self.state, group["capturable"])

    def _cached_step(self, cache: GroupCache, group: dict[str, Any]) -> Tensor | float | None:
        steps = []
        if group["capturable"]:
            steps = [self.state[p]["step"] for p in group["params"] if p.grad is not None]
        if steps:
            torch._foreach_add_(steps, 1.0)
        distance = cache.adamw(group)
        if distance is None and steps:
            torch._foreach_sub_(steps, 1.0)
        return distance

    def _reference_step(self, group: dict[str, Any]) -> None:
        reference.adamw_step(group, self.state, self.anchors)


@shape_only("masked_sgd_")
def _masked_sgd_shape(
    weights: list[Tensor],
    grads: list[Tensor],
    momenta: list[Tensor],
    masks: list[Tensor],
    anchors: list[Tensor],
    *rates: float,
) -> Tensor:
    torch._check(len(grads) == len(weights), lambda: f"grads has {len(grads)} tensors, weights {len(weights)}")
    return torch.empty((), dtype=torch.float64, device=weights[0].device)


@shape_only("masked_adamw_")
def _masked_adamw_shape(
    weights: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    masks: list[Tensor],
    anchors: list[Tensor],
    *rates: float,
) -> Tensor:
    torch._check(len(grads) == len(weights), lambda: f"grads has {len(grads)} tensors, weights {len(weights)}")
    return torch.empty((), dtype=torch.float64, device=weights[0].device)
