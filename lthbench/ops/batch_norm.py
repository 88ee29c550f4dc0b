"""Batch normalisation of a training in the batch-blocked layout (ops/convolution.py), with what follows it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available
from lthbench.ops.convolution import from_blocked, to_blocked


def batch_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    num_images: int,
    eps: float,
    residual: Tensor | None = None,
    *,
    relu: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise with the batch's statistics, add `residual`, and apply a ReLU if asked, in one pass after the sums.

    The equations, of the gradients too, are those of csrc/batch_norm.h. Second derivatives are a RuntimeError.

    Args:
        x: [G, C, H + 2, W + 2, 16] float32 with a border of zeros.
        weight, bias: [C] float32.
        num_images: of the batch; the padding images behind them count for nothing and have gradients of 0.
        residual: of the shape of x, to add before the ReLU, or None.

    Returns:
        y of the shape of x, and the batch's mean [C] and variance [C] (divided by the number of pixels), of which no
        gradient is taken.

    Raises:
        RuntimeError: an argument's shape or dtype is not as above.
    """
    if not kernels_available("cpu"):
        return _reference(x, weight, bias, num_images, eps, residual, relu)
    y, mean, variance = _BatchNorm.apply(x, weight, bias, residual, num_images, eps, relu)
    return y, mean, variance


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        num_images: int,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, variance, rstd = torch.ops.lthbench.blocked_batch_norm(
            x, weight, bias, residual, num_images, eps, relu
        )
        ctx.save_for_backward(x, y if relu else None, weight, mean, rstd)
        ctx.num_images, ctx.adds = num_images, residual is not None
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y, weight, mean, rstd = ctx.saved_tensors
        dx, residual, dw, db = torch.ops.lthbench.blocked_batch_norm_gradient(
            grads[0].contiguous(), x, y, weight, mean, rstd, ctx.num_images, ctx.adds
        )
        return dx, dw, db, residual if ctx.adds else None, None, None, None


def _reference(
    x: Tensor, weight: Tensor, bias: Tensor, num_images: int, eps: float, residual: Tensor | None, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    images = from_blocked(x)[:num_images]
    variance, mean = torch.var_mean(images.detach(), (0, 2, 3), correction=0)
    y = to_blocked(F.batch_norm(images, None, None, weight, bias, training=True, eps=eps))
    if residual is not None:
        y = y + to_blocked(from_blocked(residual)[:num_images])
    return y.relu() if relu else y, mean, variance


@shape_only("blocked_batch_norm")
def _batch_norm_shape(
    input: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, num_images: int, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(input), torch.empty_like(weight), torch.empty_like(weight), torch.empty_like(weight)


@shape_only("blocked_batch_norm_gradient")
def _batch_norm_gradient_shape(
    grad: Tensor,
    input: Tensor,
    output: Tensor | None,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    num_images: int,
    residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    residual_grad = torch.empty_like(input) if residual else input.new_empty(0)
    return torch.empty_like(input), residual_grad, torch.empty_like(weight), torch.empty_like(weight)
