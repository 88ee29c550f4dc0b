"""The layers of a fused graph: convolutions with what follows them, normalisation as a scale and a shift."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lthbench.engine.policy import onednn_fuses
from lthbench.ops.convolution import SparsityPattern, sparse_convolution, winograd_convolution


class BlockedConvolution(nn.Module):
    """A convolution of images in blocks, with everything but its operands: of the pattern's weights, or dense 3x3."""

    def __init__(self, pattern: SparsityPattern | None, geometry: tuple[int, int, int], relu: bool) -> None:
        super().__init__()
        self.pattern = pattern
        self.geometry = geometry  # kernel, stride, padding
        self.relu = relu

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None) -> Tensor:
        """Images in blocks to images in blocks."""
        if self.pattern is None:
            return winograd_convolution(x, weight, bias, other, relu=self.relu)
        return sparse_convolution(x, weight, bias, self.pattern, *self.geometry, other, relu=self.relu)


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalise [B, C, H, W] with one scale and shift [C] a channel."""
    return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    relu: bool,
) -> Tensor:
    """Convolve and optionally rectify, in one pass where oneDNN is at hand."""
    if not onednn_fuses(x):
        out = torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
        return out.relu_() if relu else out
    activation = "relu" if relu else "none"
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, activation, [], ""
    )


def convolution_add(
    other: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    relu: bool,
    in_place: bool,
) -> Tensor:
    """Convolve, add ``other`` and optionally rectify; ``in_place`` writes the result over ``other``."""
    geometry = (padding, stride, dilation, groups)
    if in_place and onednn_fuses(x):
        activation = "relu" if relu else None
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            other, x, weight, bias, *geometry, "add", 1.0, activation, [], ""
        )
    out = convolution(x, weight, bias, stride, padding, dilation, groups, False).add_(other)
    return out.relu_() if relu else out
