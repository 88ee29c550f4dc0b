"""Linear layers of a training on the CPU by oneDNN, where torch's own products are the slower ones.

torch gives float32 products of matrices to MKL, which on processors that are not Intel's runs at half their speed.
Which library is asked follows from the environment and the shapes alone (`policy.MIN_MULTIPLICATIONS`), never from a
time, so that the same work gives the same bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lthbench.engine import policy
from lthbench.engine.convert import replace_modules, with_tensors_of
from lthbench.ops.cpu import cpuinfo, has_avx512


class OneDnnLinear(nn.Linear):
    """nn.Linear whose large products in training are oneDNN's, and the gradients of that; in evaluation it is torch's.

    Not for autocast, torch.compile or a transform of torch.func; second derivatives are a RuntimeError.
    """

    @classmethod
    def of(cls, layer: nn.Linear) -> OneDnnLinear:
        """The layer in this form, with its very tensors."""
        bias = layer.bias is not None
        return with_tensors_of(layer, cls(layer.in_features, layer.out_features, bias, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] to [..., O]."""
        large = (
            x.dim() == 2 and x.dtype is torch.float32 and x.numel() * self.out_features >= policy.MIN_MULTIPLICATIONS
        )
        if large and self.training and torch.is_grad_enabled():
            y: Tensor = _Linear.apply(x, self.weight, self.bias)
            return y
        return F.linear(x, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Replace, where this environment gains by it, the linear layers below a model that are on the CPU in float32."""
    if onednn_is_faster():
        replace_modules(model, lambda module: OneDnnLinear.of(module) if _is_eligible(module) else None)


def _is_eligible(module: nn.Module) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and module.weight.device.type == "cpu" and module.weight.dtype is torch.float32


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
