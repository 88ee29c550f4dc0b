"""Convolutions of a training in the batch-blocked layout (ops/convolution.py), with their gradients."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available
from lthbench.ops.convolution import SparsityPattern, from_blocked, to_blocked


class MaskedConvolution(NamedTuple):
    """A batch-blocked convolution of a training, without bias: over the kept weights, or dense by Winograd's filtering.

    Attributes:
        pattern: which weights are kept; None for dense 3x3 filters with stride and padding 1 (`winograd_convolution`).
        kernel, stride, padding: padding is 0 or 1, the kernel at most 2 larger.
    """

    pattern: SparsityPattern | None
    kernel: int = 3
    stride: int = 1
    padding: int = 1

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """x [G, I, H + 2, W + 2, 16] and weight [O, I, kernel, kernel] to [G, O, H' + 2, W' + 2, 16].

        With a pattern, the gradient of pruned weights is 0. The gradients of padding images must be 0, as those that
        `batch_norm` gives are. Second derivatives are a RuntimeError.
        """
        if not kernels_available("cpu"):
            return self._reference(x, weight)
        y: Tensor = _Convolution.apply(x, weight, self, False)
        return y

    def with_input(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and x once more for what else reads it, whose gradient is then added in the same pass."""
        if not kernels_available("cpu"):
            return self._reference(x, weight), x
        y, again = _Convolution.apply(x, weight, self, True)
        return y, again

    def _reference(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.pattern is not None:
            kept = torch.zeros(weight.numel(), dtype=torch.bool).index_fill_(0, self.pattern.index, 1)
            weight = weight * kept.view(weight.shape)
        return to_blocked(F.conv2d(from_blocked(x), weight, None, self.stride, self.padding))


@cache
def _zeros(size: int) -> Tensor:
    return torch.zeros(size)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: MaskedConvolution, again: bool) -> Any:
        pattern, ops = layer.pattern, torch.ops.lthbench
        no_bias = _zeros(weight.shape[0])
        if pattern is None:
            used = weight.contiguous()
            y = ops.winograd_convolution(x, used, no_bias, None, False)
        else:
            used = weight.take(pattern.index)
            y = ops.sparse_convolution(x, used, pattern.col_indices, pattern.row_ptr, no_bias, None, *layer[1:], False)
        ctx.save_for_backward(x, used, weight)
        ctx.layer = layer
        return (y, x) if again else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, residual: Tensor | None = None) -> tuple[Tensor | None, ...]:
        """dx, to which `residual`, the gradient of the input's other use, is added, and the weight's."""
        x, used, weight = ctx.saved_tensors
        layer, ops, dy = ctx.layer, torch.ops.lthbench, dy.contiguous()
        pattern = layer.pattern
        dx, dw = None, None
        if ctx.needs_input_grad[0]:
            residual = None if residual is None else residual.contiguous()
            if pattern is None:
                turned = used.flip(2, 3).transpose(0, 1).contiguous()
                dx = ops.winograd_convolution(dy, turned, _zeros(used.shape[1]), residual, False)
            else:
                lists = pattern.row_indices, pattern.col_ptr, pattern.order
                sides = (size - 2 for size in x.shape[2:4])
                dx = ops.sparse_convolution_input_gradient(dy, used, *lists, residual, *sides, *layer[1:])
        if ctx.needs_input_grad[1]:
            if pattern is None:
                dw = ops.dense_convolution_weight_gradient(x, dy, layer.stride)
            else:
                at_kept = ops.sparse_convolution_weight_gradient(
                    x, dy, pattern.col_indices, pattern.row_ptr, *layer[1:]
                )
                # torch refuses put_ as not deterministic, although no index repeats here.
                dw = at_kept.new_zeros(weight.numel()).scatter_(0, pattern.index, at_kept).view(weight.shape)
        return dx, dw, None, None


def plane_mean(x: Tensor, num_images: int) -> Tensor:
    """The mean of every plane: blocks [G, C, H + 2, W + 2, 16] to [num_images, C]."""
    mean: Tensor = _PlaneMean.apply(x)
    return mean.permute(0, 2, 1).flatten(0, 1)[:num_images]


class _PlaneMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.sum((2, 3)) / ((x.shape[2] - 2) * (x.shape[3] - 2))  # the border is 0

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        height, width = ctx.shape[2] - 2, ctx.shape[3] - 2
        dx = grad.new_zeros(ctx.shape)
        dx[:, :, 1:-1, 1:-1] = (grad / (height * width))[:, :, None, None]
        return dx


@shape_only("sparse_convolution_input_gradient")
def _input_gradient_shape(
    grad: Tensor,
    values: Tensor,
    row_indices: Tensor,
    col_ptr: Tensor,
    order: Tensor,
    residual: Tensor | None,
    height: int,
    width: int,
    *geometry: int,
) -> Tensor:
    torch._check(grad.dim() == 5, lambda: f"grad has {grad.dim()} dimensions, expected 5")
    return grad.new_empty(grad.shape[0], col_ptr.shape[0] - 1, height + 2, width + 2, grad.shape[4])


@shape_only("sparse_convolution_weight_gradient")
def _weight_gradient_shape(input: Tensor, grad: Tensor, col_indices: Tensor, row_ptr: Tensor, *geometry: int) -> Tensor:
    return input.new_empty(col_indices.shape)


@shape_only("dense_convolution_weight_gradient")
def _dense_weight_gradient_shape(input: Tensor, grad: Tensor, stride: int) -> Tensor:
    torch._check(grad.dim() == 5, lambda: f"grad has {grad.dim()} dimensions, expected 5")
    return input.new_empty(grad.shape[1], input.shape[1], 3, 3)
