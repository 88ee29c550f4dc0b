"""Convolutions in the batch-blocked layout: over the kept weights only, or dense by Winograd's minimal filtering.

Activations lie as [G, C, H + 2, W + 2, 16] with a border of zeros, one image per vector lane. Each kept weight is then
one broadcast and a row of vector products, whatever its position, and the transform of a tile consists of additions of
whole vectors. A training's activations lie without the border (ops/masked_convolution.py), which its kernels add to the
few rows that they work on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available
from lthbench.ops.contract import check_no_gradient

BLOCK = 16  # images


@dataclass(frozen=True)
class SparsityPattern:
    """Which weights [O, I, kernel, kernel] of a square convolution are kept.

    By output channel (CSR), as the convolution and its weights' gradient read them, and by input channel (CSC), as the
    gradient of its input does.
    """

    col_indices: Tensor  # [n] int32, (input channel * kernel + row) * kernel + column, ascending in an output channel
    row_ptr: Tensor  # [out_channels + 1] int32
    index: Tensor  # [n] int64, flat positions in the weight
    row_indices: Tensor  # [n] int32, (output channel * kernel + row) * kernel + column, ascending in an input channel
    col_ptr: Tensor  # [in_channels + 1] int32
    order: Tensor  # [n] int32, position in `index` of each weight of `row_indices`

    @classmethod
    def of(cls, mask: Tensor) -> SparsityPattern:
        """The pattern of a bool mask [O, I, kernel, kernel]."""
        area = mask.shape[2] * mask.shape[3]
        kept = mask.reshape(mask.shape[0], mask.shape[1], area)
        outputs, inputs, places = kept.nonzero().unbind(1)
        order = torch.argsort(inputs, stable=True)
        return cls(
            (inputs * area + places).int(),
            _starts(kept.sum((1, 2))),
            kept.reshape(-1).nonzero().reshape(-1),
            (outputs * area + places)[order].int(),
            _starts(kept.sum((0, 2))),
            order.int(),
        )

    @property
    def lists(self) -> tuple[Tensor, ...]:
        """Those by output and by input channel, as the gradient of a layer takes them."""
        return self.col_indices, self.row_ptr, self.row_indices, self.col_ptr, self.order


def _starts(counts: Tensor) -> Tensor:
    """Where lists of so many entries begin that lie one after the other, and where the last ends."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


def output_side(size: int, kernel: int, stride: int, padding: int) -> int:
    """The side of a convolution's output, without a border."""
    return (size + 2 * padding - kernel) // stride + 1


def to_blocks(x: Tensor) -> Tensor:
    """Images [B, C, H, W] in blocks without a border, [ceil(B / 16), C, H, W, 16], padded with images of 0."""
    return F.pad(x, (0,) * 7 + (-x.shape[0] % BLOCK,)).unflatten(0, (-1, BLOCK)).permute(0, 2, 3, 4, 1).contiguous()


def from_blocks(x: Tensor) -> Tensor:
    """Blocks without a border as [16 G, C, H, W], with the padding images."""
    return x.permute(0, 4, 1, 2, 3).flatten(0, 1)


def to_blocked(x: Tensor) -> Tensor:
    """Images [B, C, H, W] in the batch-blocked layout, [ceil(B / 16), C, H + 2, W + 2, 16], padded with images of 0."""
    return to_blocks(F.pad(x, (1, 1, 1, 1)))


def from_blocked(x: Tensor) -> Tensor:
    """Batch-blocked activations as [16 G, C, H, W], with the padding images."""
    return from_blocks(x[:, :, 1:-1, 1:-1])


def sparse_convolution(
    x: Tensor,
    values: Tensor,
    bias: Tensor,
    pattern: SparsityPattern,
    kernel: int,
    stride: int,
    padding: int,
    residual: Tensor | None = None,
    *,
    relu: bool = False,
) -> Tensor:
    """Convolve batch-blocked activations with a masked weight, add `residual`, and apply a ReLU if asked, in one pass.

    Args:
        x: [G, I, H + 2, W + 2, 16] float32 with a border of zeros.
        values: [n] float32, the kept weights in the order of `pattern`.
        bias: [O] float32.
        pattern: their positions.
        kernel, stride, padding: of the square convolution; padding is 0 or 1.
        residual: [G, O, H' + 2, W' + 2, 16] to add before the ReLU, or None.

    Returns:
        [G, O, H' + 2, W' + 2, 16] float32 with a border of zeros.

    Raises:
        RuntimeError: an argument's shape or dtype is not as above, a column index lies outside the kernel, or those of
            an output channel do not ascend.
        ValueError: a gradient is wanted.
    """
    check_no_gradient(x=x, values=values, bias=bias, residual=residual)
    if kernels_available("cpu"):
        return torch.ops.lthbench.sparse_convolution(
            x, values, pattern.col_indices, pattern.row_ptr, bias, residual, kernel, stride, padding, relu
        )
    weight = values.new_zeros(bias.numel() * x.shape[1] * kernel * kernel)
    weight[pattern.index] = values
    return _reference(x, weight.view(-1, x.shape[1], kernel, kernel), bias, stride, padding, residual, relu)


class SparseFilters(NamedTuple):
    """The kept weights of a convolution, and what it is: arguments of `sparse_convolution`."""

    values: Tensor
    bias: Tensor
    pattern: SparsityPattern
    kernel: int
    stride: int
    padding: int
    relu: bool


def sparse_convolution_pair(
    x: Tensor, first: SparseFilters, second: SparseFilters, residual: Tensor | None = None
) -> Tensor:
    """Two convolutions one after the other, with the bits of `sparse_convolution`; what lies between them stays in the
    cache, a few rows at a time.

    Args:
        second: its kernel is at most 2 larger than its padding.
        residual: is added to the second.
    """
    check_no_gradient(x=x, values=first.values, bias=first.bias, residual=residual)
    check_no_gradient(values=second.values, bias=second.bias)
    if kernels_available("cpu"):
        made: Tensor = torch.ops.lthbench.sparse_convolution_pair(
            x, *_of_first(first), *_of_first(second)[:4], residual, *second[3:]
        )
        return made
    x = sparse_convolution(x, *first[:-1], relu=first.relu)
    return sparse_convolution(x, *second[:-1], residual, relu=second.relu)


def _of_first(filters: SparseFilters) -> tuple[Any, ...]:
    pattern = filters.pattern
    return filters.values, pattern.col_indices, pattern.row_ptr, filters.bias, *filters[3:]


def winograd_convolution(
    x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None = None, *, relu: bool = False
) -> Tensor:
    """Convolve batch-blocked activations with 3x3 filters, stride and padding 1, add `residual`, and apply a ReLU if
    asked.

    By minimal filtering F(4x4, 3x3): 2.25 products per pixel and weight in place of 9 (Lavin and Gray, "Fast Algorithms
    for Convolutional Neural Networks", 2016). Its error is at most some 1e-5 standard deviations of the outputs. An
    input that is infinite or NaN makes all outputs of its tiles NaN.

    Args:
        x: [G, I, H + 2, W + 2, 16] float32 with a border of zeros.
        weight: [O, I, 3, 3] float32.
        bias: [O] float32.
        residual: [G, O, H + 2, W + 2, 16] to add before the ReLU, or None.

    Returns:
        [G, O, H + 2, W + 2, 16] float32 with a border of zeros.

    Raises:
        RuntimeError: an argument's shape or dtype is not as above.
        ValueError: a gradient is wanted.
    """
    check_no_gradient(x=x, weight=weight, bias=bias, residual=residual)
    if kernels_available("cpu"):
        return torch.ops.lthbench.winograd_convolution(x, weight, bias, residual, relu)
    return _reference(x, weight, bias, 1, 1, residual, relu)


def _reference(
    x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, residual: Tensor | None, relu: bool
) -> Tensor:
    out = to_blocked(F.conv2d(from_blocked(x), weight, bias, stride, padding))
    if residual is not None:
        out += residual
    return out.relu_() if relu else out


@shape_only("sparse_convolution")
def _sparse_convolution_shape(
    input: Tensor,
    values: Tensor,
    col_indices: Tensor,
    row_ptr: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    kernel: int,
    stride: int,
    padding: int,
    relu: bool,
) -> Tensor:
    torch._check(input.dim() == 5, lambda: f"input has {input.dim()} dimensions, expected 5")
    return input.new_empty(_output_shape(input.shape, bias, kernel, stride, padding))


def _output_shape(
    input: Sequence[int], bias: Tensor, kernel: int, stride: int, padding: int
) -> tuple[int, int, int, int, int]:
    height, width = (output_side(size - 2, kernel, stride, padding) + 2 for size in input[2:4])
    return input[0], bias.shape[0], height, width, input[4]


@shape_only("sparse_convolution_pair")
def _sparse_convolution_pair_shape(
    input: Tensor,
    first_values: Tensor,
    first_col_indices: Tensor,
    first_row_ptr: Tensor,
    first_bias: Tensor,
    first_kernel: int,
    first_stride: int,
    first_padding: int,
    first_relu: bool,
    values: Tensor,
    col_indices: Tensor,
    row_ptr: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    kernel: int,
    stride: int,
    padding: int,
    relu: bool,
) -> Tensor:
    torch._check(input.dim() == 5, lambda: f"input has {input.dim()} dimensions, expected 5")
    between = _output_shape(input.shape, first_bias, first_kernel, first_stride, first_padding)
    return input.new_empty(_output_shape(between, bias, kernel, stride, padding))


@shape_only("winograd_convolution")
def _winograd_convolution_shape(
    input: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, relu: bool
) -> Tensor:
    torch._check(input.dim() == 5, lambda: f"input has {input.dim()} dimensions, expected 5")
    return input.new_empty(input.shape[0], bias.shape[0], *input.shape[2:])
