"""Convolutions of a training over the kept weights, with their gradients, on blocks of images without a border.

What a convolution hands on is normalised when it is read (ops/normalisation.py).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available
from lthbench.ops.convolution import BLOCK, SparsityPattern, from_blocks, output_side, to_blocks
from lthbench.ops.normalisation import Activations, BatchNorm


class MaskedConvolution(NamedTuple):
    """A convolution of a training, without bias: over the kept weights, or dense by Winograd's filtering.

    With a pattern, the gradient of pruned weights is 0. Second derivatives are a RuntimeError, as arguments of a wrong
    shape or dtype are.

    Attributes:
        pattern: which weights are kept; None for dense 3x3 filters with stride and padding 1 (`winograd_convolution`).
        kernel, stride, padding: padding is 0 or 1, the kernel at most 2 larger.
    """

    pattern: SparsityPattern | None
    kernel: int = 3
    stride: int = 1
    padding: int = 1

    def __call__(
        self,
        read: Activations,
        weight: Tensor,
        norm: BatchNorm | None = None,
        num_images: int | None = None,
        *,
        keep: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What is read [G, I, H, W, 16] and weight [O, I, kernel, kernel] to [G, O, H', W', 16].

        Args:
            norm: the normalisation behind it, which whatever reads the output does.
            num_images: of the batch; the padding images behind them count for nothing and have gradients of 0, which
                those of the output must have without `norm`. None where there are none.
            keep: return what was read too, finished, for what else reads it: its gradient from there is then added in
                the same pass. Always so where a residual is added.

        Returns:
            `values` and `affine` of `Activations`, the latter None without `norm`; and what was read, or None.
        """
        num_images = BLOCK * len(read.values) if num_images is None else num_images
        keep = keep or read.residual is not None
        y: Tensor
        if kernels_available("cpu"):
            of_norm = (None, None) if norm is None else (norm.gain, norm.bias)
            y, affine, x = _Layer.apply(*read, weight, *of_norm, self, norm, num_images, keep)
            return y, affine, x
        x = read.reference(num_images)
        y = self._reference(x, weight)
        return y, None if norm is None else norm.reference(y, num_images), x if keep else None

    def _reference(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.pattern is not None:
            kept = torch.zeros(weight.numel(), dtype=torch.bool).index_fill_(0, self.pattern.index, 1)
            weight = weight * kept.view(weight.shape)
        return to_blocks(F.conv2d(from_blocks(x), weight, None, self.stride, self.padding))


class _Layer(torch.autograd.Function):
    """One node for a convolution and the normalisation before it, which read the same rows."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        affine: Tensor | None,
        residual: Tensor | None,
        relu: bool,
        weight: Tensor,
        gain: Tensor | None,
        bias: Tensor | None,
        layer: MaskedConvolution,
        norm: BatchNorm | None,
        num_images: int,
        keep: bool,
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        pattern, of_norm = layer.pattern, (None,) * 4 if norm is None else norm[:4]
        momentum, eps = (0.0, 0.0) if norm is None else norm[4:]
        used = weight.contiguous() if pattern is None else weight.take(pattern.index)
        lists = (None, None) if pattern is None else (pattern.col_indices, pattern.row_ptr)
        finishes = keep and affine is not None
        y, of_y, rstd, finished = torch.ops.lthbench.convolution_layer(
            values, affine, residual, relu, finishes, used, *lists, len(weight), *layer[1:],
            *of_norm, num_images, eps, momentum,
        )  # fmt: skip
        saved = (None,) * 3 if norm is None else (y, of_y, rstd)
        ctx.save_for_backward(values, affine, finished if finishes else None, used, weight, gain, *saved)
        ctx.layer, ctx.relu, ctx.adds, ctx.num_images = layer, relu, residual is not None, num_images
        return y, None if norm is None else of_y, (finished if finishes else values) if keep else None

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: Tensor | None, d_affine: Tensor | None, other: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        values, affine, finished, used, weight, gain, y, of_y, rstd = ctx.saved_tensors
        if dy is None and d_affine is None:  # what was read has another use, and the output none
            assert other is not None
            if affine is None:
                return other, *(None,) * 10
            handed_back, of_affine = torch.ops.lthbench.normalise_gradient(
                other.contiguous(), values, affine, finished, ctx.relu, ctx.num_images
            )
            return handed_back, of_affine, handed_back if ctx.adds else None, *(None,) * 8
        pattern, geometry = ctx.layer.pattern, ctx.layer[1:]
        passes_on = any(ctx.needs_input_grad[:3])
        lists = (None,) * 5 if pattern is None else pattern.lists
        if gain is not None and d_affine is None:
            d_affine = torch.zeros_like(of_y)
        if dy is None:
            dy = values.new_zeros(_output_shape(values, len(weight), *geometry)) if y is None else torch.zeros_like(y)
        dx, of_affine, dw, d_gain = torch.ops.lthbench.convolution_layer_gradient(
            dy.contiguous(), d_affine, None if other is None else other.contiguous(), values, affine, finished,
            ctx.relu, used, *lists, *geometry, gain, y, of_y, rstd, ctx.num_images, passes_on,
        )  # fmt: skip
        if pattern is not None:
            # torch refuses put_ as not deterministic, although no index repeats here.
            dw = dw.new_zeros(weight.numel()).scatter_(0, pattern.index, dw).view(weight.shape)
        of_norm = (None, None) if d_affine is None else (d_gain, d_affine[2])
        read = (dx, of_affine if affine is not None else None, dx if ctx.adds else None) if passes_on else (None,) * 3
        return *read, None, dw, *of_norm, None, None, None, None


def plane_mean(x: Tensor, num_images: int) -> Tensor:
    """The mean of every plane: blocks [G, C, H, W, 16] to [num_images, C]."""
    return x.mean((2, 3)).permute(0, 2, 1).flatten(0, 1)[:num_images]


def blocks_of(x: Tensor, num_images: int) -> Tensor:
    """The blocks of images [B, C, H, W].

    Raises:
        RuntimeError: they are not so many, as where a summand is broadcast.
    """
    if x.dim() != 4 or len(x) != num_images:
        raise RuntimeError(
            f"the network convolves or adds values of shape {tuple(x.shape)} where it was given {num_images} images, "
            "so it changes the number of its images within, or adds the same to all; train it by the engine 'torch'"
        )
    return to_blocks(x)


def _output_shape(input: Tensor, num_outputs: int, kernel: int, stride: int, padding: int) -> tuple[int, ...]:
    torch._check(input.dim() == 5, lambda: f"input has {input.dim()} dimensions, expected 5")
    height, width = (output_side(size, kernel, stride, padding) for size in input.shape[2:4])
    return input.shape[0], num_outputs, height, width, input.shape[4]


@shape_only("convolution_layer")
def _layer_shape(
    input: Tensor,
    affine: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    keep: bool,
    weight: Tensor,
    col_indices: Tensor | None,
    row_ptr: Tensor | None,
    num_outputs: int,
    kernel: int,
    stride: int,
    padding: int,
    gain: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_images: int,
    eps: float,
    momentum: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y = input.new_empty(_output_shape(input, num_outputs, kernel, stride, padding))
    made = input.new_empty((0,) if gain is None else (3, num_outputs))
    return (
        y,
        made,
        input.new_empty((0,) if gain is None else gain.shape),
        input.new_empty(input.shape if keep else (0,)),
    )


@shape_only("convolution_layer_gradient")
def _layer_gradient_shape(
    grad: Tensor,
    affine_grad: Tensor | None,
    finished_grad: Tensor | None,
    input: Tensor,
    affine: Tensor | None,
    finished: Tensor | None,
    relu: bool,
    weight: Tensor,
    col_indices: Tensor | None,
    row_ptr: Tensor | None,
    row_indices: Tensor | None,
    col_ptr: Tensor | None,
    order: Tensor | None,
    kernel: int,
    stride: int,
    padding: int,
    gain: Tensor | None,
    output: Tensor | None,
    output_affine: Tensor | None,
    rstd: Tensor | None,
    num_images: int,
    passes_on: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def like(t: Tensor | None, wanted: bool = True) -> Tensor:
        return input.new_empty(t.shape if t is not None and wanted else (0,))

    return like(input, passes_on), like(affine, passes_on), like(weight), like(gain)
