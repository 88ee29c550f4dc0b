"""Benchmark of the masked update: one optimizer step over a network's whole parameter list, and a training step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.bench.timing import PROBE_BYTES, Work, update_probe
from lthbench.engine.onednn_linear import use_onednn
from lthbench.ops.optimizers import MaskedAdamW, MaskedSGD

DENSITY, PULL = 0.5, 1e-4
WARM_REPEATS = 20  # of a network that fits the caches, as training finds it there
OPTIONS: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}
ADAMW_OPTIONS: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.05}


def parameter_shapes(network: str) -> list[tuple[int, ...]]:
    """The parameter shapes of a network: resnet20 (CIFAR), or any of torchvision's."""
    if network != "resnet20":
        from torchvision import models

        with torch.device("meta"):
            return [tuple(p.shape) for p in models.get_model(network).parameters()]
    shapes: list[tuple[int, ...]] = [(16, 3, 3, 3), (16,), (16,)]
    for width, before in ((16, 16), (32, 16), (64, 32)):
        for block in range(3):
            inputs = before if block == 0 else width
            shapes += [(width, inputs, 3, 3), (width,), (width,), (width, width, 3, 3), (width,), (width,)]
            if inputs != width:
                shapes += [(width, inputs, 1, 1), (width,), (width,)]
    return [*shapes, (10, 64), (10,)]


def _parameters(network: str) -> list[Tensor]:
    torch.manual_seed(0)
    params: list[Tensor] = [nn.Parameter(0.1 * torch.randn(s)) for s in parameter_shapes(network)]
    for p in params:
        p.grad = 0.1 * torch.randn_like(p)
    return params


def _masks(params: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.rand(p.shape) < DENSITY if p.dim() > 1 else torch.ones(p.shape, dtype=torch.bool) for p in params]


def ours(network: str, full: bool, adamw: bool = False) -> Callable[[], object]:
    """A step of MaskedSGD or MaskedAdamW; `full` with the penalty and the distance."""
    params = _parameters(network)
    masks = {p: m for p, m in zip(params, _masks(params), strict=True) if p.dim() > 1}
    anchors = {p: p.detach().clone() for p in params} if full else {}
    pull = PULL if full else 0.0
    if adamw:
        return MaskedAdamW(params, **ADAMW_OPTIONS, masks=masks, anchors=anchors, pull=pull).step
    return MaskedSGD(params, **OPTIONS, masks=masks, anchors=anchors, pull=pull).step


def torch_masked(network: str, adamw: bool = False, **form: Any) -> Callable[[], object]:
    """torch.optim.SGD or AdamW and a foreach product with float masks, its fastest form."""
    params = _parameters(network)
    masks = [m.float() for m in _masks(params)]
    optimizer: torch.optim.Optimizer
    if adamw:
        optimizer = torch.optim.AdamW(params, **ADAMW_OPTIONS, **form)
    else:
        optimizer = torch.optim.SGD(params, **OPTIONS, **form)

    def step() -> None:
        optimizer.step()
        with torch.no_grad():
            torch._foreach_mul_(params, masks)

    return step


def torch_full(network: str) -> Callable[[], object]:
    """The same with the penalty and the squared distance, all in foreach operations."""
    params = _parameters(network)
    masks = [m.float() for m in _masks(params)]
    anchors = [p.detach().clone() for p in params]
    grads = [p.grad for p in params if p.grad is not None]
    optimizer = torch.optim.SGD(params, **OPTIONS, foreach=True)

    @torch.no_grad()
    def step() -> Tensor:
        torch._foreach_add_(grads, torch._foreach_sub(params, anchors), alpha=PULL)
        optimizer.step()
        torch._foreach_mul_(params, masks)
        deltas = torch._foreach_sub(params, anchors)
        torch._foreach_mul_(deltas, masks)
        return torch.stack(torch._foreach_norm(deltas)).square().sum()

    return step


def update_works(network: str) -> list[Work]:
    """A masked step of SGD, of SGD with pull and distance, and of AdamW, against torch.

    Their limit is a probe of as many bytes. Bytes per weight: weight, gradient and momentum read, weight and momentum
    written, and a mask bit, 20 1/8; an anchor is 4 more, a second moment 8.
    """
    num_weights = sum(torch.Size(s).numel() for s in parameter_shapes(network))

    def work(name: str, bytes_per_weight: float, mine: Callable[[], object], **usual: Callable[[], object]) -> Work:
        num_bytes = bytes_per_weight * num_weights
        return Work(
            f"{name}, {network}",
            {"ours": mine},
            {how.replace("_", " "): call for how, call in usual.items()},
            {"limit: memory": update_probe(round(num_bytes / PROBE_BYTES))},
            num_bytes,
            WARM_REPEATS if network == "resnet20" else 1,
        )

    return [
        work(
            "masked SGD", 20.125, ours(network, full=False), torch_fused_and_mask=torch_masked(network, fused=True),
            torch_foreach_and_mask=torch_masked(network, foreach=True),
        ),
        work(
            "masked SGD with pull and distance", 24.125, ours(network, full=True), torch_foreach=torch_full(network)
        ),
        work(
            "masked AdamW", 28.125, ours(network, full=False, adamw=True),
            torch_fused_and_mask=torch_masked(network, adamw=True, fused=True),
        ),
    ]  # fmt: skip


def training_step_work(name: str, model: nn.Module, images: Tensor, labels: Tensor) -> Work:
    """A whole training step: ours, and masks multiplied into the weights before each forward pass.

    Ours is what `Trainer` does, linear layers by oneDNN where that is faster. The baseline is what open_lth's
    `PrunedModel` does, with torch.optim.SGD as it comes; the limit is our forward and backward pass alone.
    """
    usual, alone = copy.deepcopy(model), copy.deepcopy(model)
    params: list[Tensor] = list(model.parameters())
    masks = {p: m for p, m in zip(params, _masks(params), strict=True) if p.dim() > 1}
    factors = [masks[p].float() if p in masks else None for p in model.parameters()]
    masked, stock = (
        MaskedSGD(model.parameters(), **OPTIONS, masks=masks),
        torch.optim.SGD(usual.parameters(), **OPTIONS),
    )

    for network in (model, alone):
        use_onednn(network)

    def backward(network: nn.Module) -> None:
        network.zero_grad()
        F.cross_entropy(network(images), labels).backward()

    def ours() -> None:
        backward(model)
        masked.step()

    def multiplied() -> None:
        for p, factor in zip(usual.parameters(), factors, strict=True):
            if factor is not None:
                p.data *= factor
        backward(usual)
        stock.step()

    return Work(
        name,
        {"ours": ours},
        {"masks in forward": multiplied},
        {"limit: forward and backward": lambda: backward(alone)},
        repeats=WARM_REPEATS,
    )
