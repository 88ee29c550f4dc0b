"""Linear layers of a training on the CPU by oneDNN, where torch's own products are the slower ones.

torch gives float32 products of matrices to MKL, which on processors that are not Intel's runs at half their speed.
Measured with torch 2.14 and one thread of an AMD Zen 5 with AVX-512, at 60 images a batch (MKL / oneDNN, in us):

    inputs -> outputs   forward      gradient of the weight   gradient of the input
    784 -> 300          288 / 152    276 / 139                278 / 139
    4096 -> 256         1234 / 590   1259 / 541               1262 / 598
    300 -> 100          40 / 30      37 / 30                  37 / 26
    100 -> 10           5 / 13       3 / 14                   3 / 12

oneDNN needs 10 us for a product before it multiplies, and an autograd function in Python as much again for a layer,
so that only products of at least `MIN_MULTIPLICATIONS` go to it. Which library is asked follows from the environment
and the shapes alone, never from a time, so that the same work gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lthbench.ops.cpu import cpuinfo, has_avx512

MIN_MULTIPLICATIONS = 1_500_000  # multiplications of one product, [B, I] by [I, O] has B I O


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    """The layers of a model that `by_onednn` speeds up in this environment: none, or those on the CPU in float32."""
    if not onednn_is_faster():
        return []
    layers = [module for module in model.modules() if type(module) is nn.Linear]
    return [m for m in layers if m.weight.device.type == "cpu" and m.weight.dtype is torch.float32]


@contextmanager
def by_onednn(layers: Sequence[nn.Linear]) -> Iterator[None]:
    """Let oneDNN compute what these layers do within the block, and later the gradients of that.

    The modules, their type and what they do outside of the block stay as they are. Not for a block under autocast,
    torch.compile or a transform of torch.func; second derivatives are a RuntimeError.
    """
    for layer in layers:
        layer.__dict__["forward"] = partial(_forward, layer)  # past the microsecond of nn.Module.__setattr__
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor with AVX-512 that is not Intel's, and a torch with MKL that has oneDNN beside it."""
    return (
        has_avx512()
        and cpuinfo().get("vendor_id", "") not in ("", "GenuineIntel")  # by which MKL chooses too
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    """x [..., I] to [..., O]."""
    if x.dim() == 2 and x.dtype is torch.float32 and x.numel() * layer.out_features >= MIN_MULTIPLICATIONS:
        y: Tensor = _Linear.apply(x, layer.weight, layer.bias)
        return y
    return F.linear(x, layer.weight, layer.bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [M, K] times the transpose of weight [N, K] plus bias [N], [M, N]."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x [B, I], weight [O, I] and bias [O] to [B, O]."""
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            _product(dy, weight.t()) if for_x else None,
            _product(dy.t(), x.t()) if for_weight else None,
            dy.sum(0) if for_bias else None,
        )
