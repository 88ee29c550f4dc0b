"""Masked optimizers: the update, the pull to the initial weights, the mask and the learning distance.

One step of `MaskedSGD` for a weight w with gradient g, momentum buffer b, mask m, anchor a (its initial value):

    g <- g + weight_decay * w + pull * (w - a)
    b <- momentum * b + (1 - dampening) * g          (b = g at the first step)
    w <- m * (w - lr * (nesterov ? g + momentum * b : b)),    b <- m * b
    distance^2 = sum over anchored weights of m * (w - a)^2

Pruned weights and their optimizer state are exactly +0 after every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd


class _Masked(torch.optim.Optimizer):
    """What the masked optimizers share: the masks, the anchors and the distance."""

    def __init__(
        self,
        params: Iterable[Any],
        defaults: dict[str, Any],
        masks: Mapping[Tensor, Tensor] | None,
        anchors: Mapping[Tensor, Tensor] | None,
    ) -> None:
        super().__init__(params, defaults)
        self.masks = dict(masks or {})
        self.anchors = dict(anchors or {})
        known = {p for group in self.param_groups for p in group["params"]}
        for kind, tensors in (("masks", self.masks), ("anchors", self.anchors)):
            for p, t in tensors.items():
                if p not in known:
                    raise ValueError(f"{kind} names a tensor of shape {tuple(p.shape)} that is no parameter")
                if t.shape != p.shape or t.device != p.device:
                    raise ValueError(
                        f"{kind} holds {tuple(t.shape)} on {t.device} for a parameter of {tuple(p.shape)} on {p.device}"
                    )
        self._pruned = {p: ~m for p, m in self.masks.items()}
        self.apply_masks()

    @torch.no_grad()
    def apply_masks(self) -> None:
        """Set every pruned weight and its optimizer state to exactly +0."""
        for p, pruned in self._pruned.items():
            p.masked_fill_(pruned, 0.0)
            for value in self.state.get(p, {}).values():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    value.masked_fill_(pruned, 0.0)

    @torch.no_grad()
    def squared_distance(self) -> Tensor:
        """Squared L2 distance of the surviving anchored weights from their anchors (float64, shape [])."""
        total = torch.zeros((), dtype=torch.float64)
        for p, a in self.anchors.items():
            delta = (p - a).double()
            if p in self._pruned:
                delta = delta.masked_fill(self._pruned[p], 0.0)
            total += delta.square().sum().cpu()
        return total

    def _gradients(self, group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor]]:
        """The group's parameters that have a gradient, and those gradients, the pull included."""
        params = [p for p in group["params"] if p.grad is not None]
        grads = [p.grad for p in params]
        anchored = [i for i, p in enumerate(params) if p in self.anchors] if group["pull"] else []
        if anchored:
            pulls = torch._foreach_sub([params[i] for i in anchored], [self.anchors[params[i]] for i in anchored])
            pulled = torch._foreach_add([grads[i] for i in anchored], pulls, alpha=group["pull"])
            for i, g in zip(anchored, pulled, strict=True):
                grads[i] = g
        return params, grads


class MaskedSGD(_Masked):
    """SGD on the surviving weights (equation above); without masks and pull it is `torch.optim.SGD`, bit for bit.

    Args:
        params: parameters or parameter groups, as for torch.optim.
        lr, momentum, dampening, weight_decay, nesterov: as for torch.optim.SGD; weight decay is coupled.
        masks: parameter -> bool tensor of its shape, True where it survives; parameters without one are dense.
        anchors: parameter -> the value it is pulled to and its distance is measured from.
        pull: lambda of (lambda/2) ||m (w - anchor)||^2, per group.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        masks: Mapping[Tensor, Tensor] | None = None,
        anchors: Mapping[Tensor, Tensor] | None = None,
        pull: float = 0.0,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and zero dampening")
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "pull": pull,
        }  # fmt: skip
        super().__init__(params, defaults, masks, anchors)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Do one update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params, grads = self._gradients(group)
            if not params:
                continue
            buffers = [self.state[p].get("momentum_buffer") for p in params]
            sgd(
                params, grads, buffers, foreach=True, fused=False, weight_decay=group["weight_decay"],
                momentum=group["momentum"], lr=group["lr"], dampening=group["dampening"],
                nesterov=group["nesterov"], maximize=False,
            )  # fmt: skip
            if group["momentum"]:
                for p, buffer in zip(params, buffers, strict=True):
                    self.state[p]["momentum_buffer"] = buffer
        self.apply_masks()
        return loss


class MaskedAdamW(_Masked):
    """AdamW with decoupled weight decay on the surviving weights; the pull is part of the gradient.

    Args:
        params: parameters or parameter groups, as for torch.optim.
        lr, betas, eps, weight_decay: as for torch.optim.AdamW.
        masks, anchors, pull: as for `MaskedSGD`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        masks: Mapping[Tensor, Tensor] | None = None,
        anchors: Mapping[Tensor, Tensor] | None = None,
        pull: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "pull": pull}
        super().__init__(params, defaults, masks, anchors)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Do one update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params, grads = self._gradients(group)
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p] = {
                        "step": torch.zeros((), dtype=torch.float32),
                        "exp_avg": torch.zeros_like(p, memory_format=torch.preserve_format),
                        "exp_avg_sq": torch.zeros_like(p, memory_format=torch.preserve_format),
                    }
            states = [self.state[p] for p in params]
            adamw(
                params, grads, [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states], [],
                [s["step"] for s in states], foreach=True, fused=False, amsgrad=False,
                beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"],
                weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
            )  # fmt: skip
        self.apply_masks()
        return loss
