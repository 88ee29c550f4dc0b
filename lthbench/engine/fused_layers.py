"""The layers of a fused graph: convolutions with what follows them, normalisation as a scale and a shift."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from lthbench.engine.policy import onednn_fuses
from lthbench.ops.convolution import (
    SparseFilters,
    SparsityPattern,
    sparse_convolution,
    sparse_convolution_pair,
    winograd_convolution,
)


class BlockedConvolution(nn.Module):
    """A convolution in the batch-blocked layout with everything but its operands: of the pattern's weights, or dense
    3x3."""

    def __init__(self, pattern: SparsityPattern | None, geometry: tuple[int, int, int], relu: bool) -> None:
        super().__init__()
        self.pattern = pattern
        self.geometry = geometry  # kernel, stride, padding
        self.relu = relu

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None) -> Tensor:
        """Batch-blocked activations to the same layout."""
        if self.pattern is None:
            return winograd_convolution(x, weight, bias, residual, relu=self.relu)
        return sparse_convolution(x, weight, bias, self.pattern, *self.geometry, residual, relu=self.relu)


class BlockedPair(nn.Module):
    """Two convolutions over kept weights, of which the second alone reads the first's output."""

    def __init__(self, first: BlockedConvolution, second: BlockedConvolution) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor, next_weight: Tensor, next_bias: Tensor, residual: Tensor | None
    ) -> Tensor:
        """Batch-blocked activations to the same layout."""
        first, second = self.first, self.second
        assert first.pattern is not None and second.pattern is not None
        return sparse_convolution_pair(
            x,
            SparseFilters(weight, bias, first.pattern, *first.geometry, first.relu),
            SparseFilters(next_weight, next_bias, second.pattern, *second.geometry, second.relu),
            residual,
        )


def pair_convolutions(body: fx.Graph, calls: dict[str, nn.Module]) -> None:
    """Let convolutions over kept weights of a graph be made by one call with those that alone read their output."""
    for node in list(body.nodes):
        before = node.args[0] if node.op == "call_module" else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        first, second = calls.get(str(before.target)), calls.get(str(node.target))
        if not all(isinstance(call, BlockedConvolution) and call.pattern is not None for call in (first, second)):
            continue
        (x, weight, bias, added), (_, next_weight, next_bias, residual) = before.args, node.args
        assert isinstance(first, BlockedConvolution) and isinstance(second, BlockedConvolution)
        kernel, _, padding = second.geometry
        if added is not None or kernel > padding + 2:
            continue
        target = f"{before.target}_{node.target}"
        calls[target] = BlockedPair(first, second)
        with body.inserting_before(node):
            made = body.call_module(target, (x, weight, bias, next_weight, next_bias, residual))
        node.replace_all_uses_with(made)
        body.erase_node(node)
        body.erase_node(before)


def scale_and_shift(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalise [B, C, H, W] with one scale and one shift per channel, [C] each."""
    return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
    residual: Tensor | None = None,
    *,
    relu: bool,
    in_place: bool = False,
) -> Tensor:
    """Convolve x [B, C, H, W], add `residual` and apply a ReLU if asked, in one pass where oneDNN can.

    Args:
        in_place: whether the result may be written over `residual`.
    """
    one_pass = onednn_fuses(x)
    if residual is None and one_pass:
        return torch.ops.mkldnn._convolution_pointwise(
            x, weight, bias, padding, stride, dilation, groups, "relu" if relu else "none", [], ""
        )
    if residual is not None and one_pass and in_place:
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            residual, x, weight, bias, padding, stride, dilation, groups, "add", 1.0, "relu" if relu else None, [], ""
        )
    if one_pass:
        out = convolution(x, weight, bias, stride, padding, dilation, groups, relu=False)
    else:
        out = torch.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if residual is not None:
        out.add_(residual)
    return out.relu_() if relu else out
