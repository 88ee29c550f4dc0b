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
from lthbench.ops.batch_norm import BatchNorm
from lthbench.ops.convolution import SparsityPattern, from_blocked, to_blocked


class MaskedConvolution(NamedTuple):
    """A batch-blocked convolution of a training, without bias: over the kept weights, or dense by Winograd's filtering.

    With a pattern, the gradient of pruned weights is 0. Second derivatives are a RuntimeError.

    Attributes:
        pattern: which weights are kept; None for dense 3x3 filters with stride and padding 1 (`winograd_convolution`).
        kernel, stride, padding: padding is 0 or 1, the kernel at most 2 larger.
    """

    pattern: SparsityPattern | None
    kernel: int = 3
    stride: int = 1
    padding: int = 1

    def __call__(self, x: Tensor, weight: Tensor, *, again: bool = False) -> Any:
        """x [G, I, H + 2, W + 2, 16] and weight [O, I, kernel, kernel] to [G, O, H' + 2, W' + 2, 16].

        The gradients of padding images must be 0, as those that `normalised` gives are.

        Args:
            again: return x too, for what else reads it: its gradient from there is then added in the same pass.
        """
        if not kernels_available("cpu"):
            y = self._reference(x, weight)
            return (y, x) if again else y
        return _Convolution.apply(x, weight, self, again)

    def normalised(
        self,
        x: Tensor,
        weight: Tensor,
        norm: BatchNorm,
        gain: Tensor,
        bias: Tensor,
        num_images: int,
        residual: Tensor | None = None,
        *,
        again: bool = False,
    ) -> Any:
        """The convolution with the normalisation behind it, whose weight and bias [O] are `gain` and `bias`.

        Args:
            num_images: of the batch; the padding images behind them count for nothing and have gradients of 0.
            residual: [G, O, H' + 2, W' + 2, 16], added before the ReLU, or None.
            again: as above.

        Raises:
            RuntimeError: an argument's shape or dtype is not as above.
        """
        if not kernels_available("cpu"):
            y = norm.reference(self._reference(x, weight), gain, bias, num_images, residual)
            return (y, x) if again else y
        return _NormalisedConvolution.apply(x, weight, gain, bias, residual, self, norm, num_images, again)

    def output(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The output, and the weights as the kernels read them."""
        pattern, ops = self.pattern, torch.ops.lthbench
        no_bias = _zeros(weight.shape[0])
        if pattern is None:
            used = weight.contiguous()
            return ops.winograd_convolution(x, used, no_bias, None, False), used
        used = weight.take(pattern.index)
        lists = pattern.col_indices, pattern.row_ptr
        return ops.sparse_convolution(x, used, *lists, no_bias, None, *self[1:], False), used

    def input_gradient(self, x: Tensor, used: Tensor, dy: Tensor, other: Tensor | None) -> Tensor:
        """dx, to which `other`, the gradient of the input's other use, is added."""
        pattern, ops = self.pattern, torch.ops.lthbench
        other = None if other is None else other.contiguous()
        if pattern is None:
            turned = used.flip(2, 3).transpose(0, 1).contiguous()
            dx: Tensor = ops.winograd_convolution(dy, turned, _zeros(used.shape[1]), other, False)
            return dx
        lists = pattern.row_indices, pattern.col_ptr, pattern.order
        sides = (size - 2 for size in x.shape[2:4])
        return ops.sparse_convolution_input_gradient(dy, used, *lists, other, *sides, *self[1:])

    def weight_gradient(self, x: Tensor, weight: Tensor, dy: Tensor) -> Tensor:
        """dw [O, I, kernel, kernel], 0 where a weight is pruned."""
        pattern, ops = self.pattern, torch.ops.lthbench
        if pattern is None:
            dw: Tensor = ops.dense_convolution_weight_gradient(x, dy, self.stride)
            return dw
        at_kept = ops.sparse_convolution_weight_gradient(x, dy, pattern.col_indices, pattern.row_ptr, *self[1:])
        # torch refuses put_ as not deterministic, although no index repeats here.
        return at_kept.new_zeros(weight.numel()).scatter_(0, pattern.index, at_kept).view(weight.shape)

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
        y, used = layer.output(x, weight)
        ctx.save_for_backward(x, used, weight)
        ctx.layer = layer
        return (y, x) if again else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, other: Tensor | None = None) -> tuple[Tensor | None, ...]:
        x, used, weight = ctx.saved_tensors
        layer, dy = ctx.layer, dy.contiguous()
        dx = layer.input_gradient(x, used, dy, other) if ctx.needs_input_grad[0] else None
        dw = layer.weight_gradient(x, weight, dy) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None


class _NormalisedConvolution(torch.autograd.Function):
    """One node for both, since a node takes as long as the kernels of a small layer."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        gain: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        layer: MaskedConvolution,
        norm: BatchNorm,
        num_images: int,
        again: bool,
    ) -> Any:
        y, used = layer.output(x, weight)
        z, of_norm = norm.output(y, gain, bias, num_images, residual)
        ctx.save_for_backward(x, used, weight, y, *of_norm)
        ctx.layer, ctx.num_images, ctx.adds = layer, num_images, residual is not None
        return (z, x) if again else z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor, other: Tensor | None = None) -> tuple[Tensor | None, ...]:
        x, used, weight, y, *of_norm = ctx.saved_tensors
        layer, needs = ctx.layer, ctx.needs_input_grad
        dy, residual, gain, bias = torch.ops.lthbench.blocked_batch_norm_gradient(
            dz.contiguous(), y, *of_norm, ctx.num_images, ctx.adds
        )
        dx = layer.input_gradient(x, used, dy, other) if needs[0] else None
        dw = layer.weight_gradient(x, weight, dy) if needs[1] else None
        return dx, dw, gain, bias, residual if ctx.adds else None, None, None, None, None


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
