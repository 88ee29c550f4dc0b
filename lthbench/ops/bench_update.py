"""Benchmark of the masked update: one optimizer step over a network's whole parameter list."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lthbench.ops.bench import Row, interleaved, row, update_probe
from lthbench.ops.update import MaskedSGD

DENSITY, PULL = 0.5, 1e-4
OPTIONS = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-4}


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


def _parameters(network: str) -> list[nn.Parameter]:
    torch.manual_seed(0)
    params = [nn.Parameter(0.1 * torch.randn(s)) for s in parameter_shapes(network)]
    for p in params:
        p.grad = 0.1 * torch.randn_like(p)
    return params


def _masks(params: list[nn.Parameter]) -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.rand(p.shape) < DENSITY if p.dim() > 1 else torch.ones(p.shape, dtype=torch.bool) for p in params]


def ours(network: str, full: bool) -> Callable[[], object]:
    """A step of MaskedSGD; `full` with the pull and the distance."""
    params = _parameters(network)
    masks = {p: m for p, m in zip(params, _masks(params), strict=True) if p.dim() > 1}
    anchors = {p: p.detach().clone() for p in params} if full else {}
    return MaskedSGD(params, **OPTIONS, masks=masks, anchors=anchors, pull=PULL if full else 0.0).step


def torch_masked(network: str, **form: bool) -> Callable[[], object]:
    """torch.optim.SGD and a foreach product with float masks, its fastest form."""
    params = _parameters(network)
    masks = [m.float() for m in _masks(params)]
    optimizer = torch.optim.SGD(params, **OPTIONS, **form)

    def step() -> None:
        optimizer.step()
        with torch.no_grad():
            torch._foreach_mul_(params, masks)

    return step


def torch_full(network: str) -> Callable[[], object]:
    """The same with the pull and the squared distance, all in foreach operations."""
    params = _parameters(network)
    masks = [m.float() for m in _masks(params)]
    anchors = [p.detach().clone() for p in params]
    grads = [p.grad for p in params]
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


def update_rows(network: str, rounds: int = 9) -> list[Row]:
    """Ours against torch, with and without pull and distance, beside the probe of four reads and two writes."""
    num_weights = sum(torch.Size(s).numel() for s in parameter_shapes(network))
    seconds = interleaved(
        {
            "probe": update_probe(num_weights),
            "ours": ours(network, full=False),
            "torch fused + mask": torch_masked(network, fused=True),
            "torch foreach + mask": torch_masked(network, foreach=True),
            "ours full": ours(network, full=True),
            "torch foreach recipe": torch_full(network),
        },
        rounds,
    )
    plain, full = f"masked SGD, {network}", f"masked SGD + pull + distance, {network}"
    return [
        # Bytes a weight: the probe moves 24, a step 20 and a mask bit, with an anchor 4 more.
        row(plain, seconds, "ours", "torch fused + mask", "probe", 20.125 / 24),
        row(plain, seconds, "ours", "torch foreach + mask", "probe", 20.125 / 24),
        row(full, seconds, "ours full", "torch foreach recipe", "probe", 24.125 / 24),
    ]
