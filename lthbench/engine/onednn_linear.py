"""Linear layers of a training on the CPU by oneDNN, where torch's own matrix products are slower.

torch gives float32 products of matrices to MKL, which on processors that are not Intel's runs at half their speed.
Which library multiplies is the policy's choice (`policy.choose_kernel`, `policy.is_large_product`).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lthbench.engine import policy
from lthbench.engine.convert import replace_modules, with_tensors_of


class OneDnnLinear(nn.Linear):
    """nn.Linear that in training computes large products and their gradients by oneDNN; in evaluation it is torch's.

    Not for autocast, torch.compile or a transform of torch.func; second derivatives are a RuntimeError.
    """

    @classmethod
    def of(cls, layer: nn.Linear) -> OneDnnLinear:
        """The same layer in this form; it keeps the tensors."""
        bias = layer.bias is not None
        return with_tensors_of(layer, cls(layer.in_features, layer.out_features, bias, device="meta"))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] to [..., O]."""
        if self.training and torch.is_grad_enabled() and policy.is_large_product(x, self.out_features):
            y: Tensor = _Linear.apply(x, self.weight, self.bias)
            return y
        return F.linear(x, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Replace, where this environment gains by it, the linear layers below a model that are on the CPU in float32."""
    replace_modules(model, _replacement)


def _replacement(layer: nn.Module) -> OneDnnLinear | None:
    if policy.choose_kernel(layer) != "onednn":
        return None
    assert isinstance(layer, nn.Linear)
    return OneDnnLinear.of(layer)


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
