"""Linear layers of a training over the kept weights, with their gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available
from lthbench.ops.convolution import SparsityPattern


class MaskedLinear(NamedTuple):
    """A linear layer that multiplies by the kept weights alone, images innermost: each weight is one broadcast.

    Attributes:
        pattern: of the weight as a 1x1 convolution, [O, I, 1, 1].
    """

    pattern: SparsityPattern

    @classmethod
    def of(cls, mask: Tensor) -> MaskedLinear:
        """The layer of a bool mask [O, I]."""
        return cls(SparsityPattern.of(mask[:, :, None, None]))

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x [B, I], weight [O, I] and bias [O] to [B, O]; the gradient of pruned weights is 0.

        Outputs and gradients are transposed in memory, so that the next such layer reads them as they are. Second
        derivatives are a RuntimeError.
        """
        if not kernels_available("cpu"):
            kept = torch.zeros(weight.numel(), dtype=torch.bool).index_fill_(0, self.pattern.index, 1)
            return F.linear(x, weight * kept.view(weight.shape), bias)
        y: Tensor = _Linear.apply(x, weight, bias, self.pattern)
        return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pattern: SparsityPattern) -> Tensor:
        columns, values = x.t().contiguous(), weight.take(pattern.index)
        ctx.save_for_backward(columns, values, weight)
        ctx.pattern = pattern
        y: Tensor = torch.ops.lthbench.sparse_linear(columns, values, pattern.col_indices, pattern.row_ptr, bias)
        return y.t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        columns, values, weight = ctx.saved_tensors
        pattern, ops, grad = ctx.pattern, torch.ops.lthbench, dy.t().contiguous()
        for_x, for_weight, for_bias, _ = ctx.needs_input_grad
        dx, dw = None, None
        if for_x:
            lists = pattern.row_indices, pattern.col_ptr, pattern.order
            dx = ops.sparse_linear_input_gradient(grad, values, *lists).t()
        if for_weight:
            at_kept = ops.sparse_linear_weight_gradient(columns, grad, pattern.col_indices, pattern.row_ptr)
            dw = at_kept.new_zeros(weight.numel()).scatter_(0, pattern.index, at_kept).view(weight.shape)
        return dx, dw, grad.sum(1) if for_bias else None, None


@shape_only("sparse_linear")
def _linear_shape(input: Tensor, values: Tensor, col_indices: Tensor, row_ptr: Tensor, bias: Tensor | None) -> Tensor:
    torch._check(input.dim() == 2, lambda: f"input has {input.dim()} dimensions, expected 2")
    return input.new_empty(row_ptr.shape[0] - 1, input.shape[1])


@shape_only("sparse_linear_input_gradient")
def _input_gradient_shape(grad: Tensor, values: Tensor, row_indices: Tensor, col_ptr: Tensor, order: Tensor) -> Tensor:
    torch._check(grad.dim() == 2, lambda: f"grad has {grad.dim()} dimensions, expected 2")
    return grad.new_empty(col_ptr.shape[0] - 1, grad.shape[1])


@shape_only("sparse_linear_weight_gradient")
def _weight_gradient_shape(input: Tensor, grad: Tensor, col_indices: Tensor, row_ptr: Tensor) -> Tensor:
    return input.new_empty(col_indices.shape)
