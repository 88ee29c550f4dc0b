"""A linear layer over the kept weights: outputs and gradients are those of the dense masked product."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from devices import needs_kernels
from devices import reference as on_reference
from torch import Tensor, library

from lthbench.ops.convolution import SparsityPattern
from lthbench.ops.masked_linear import MaskedLinear

ROUNDING = 2.0**-24  # of float32, relative

# images, inputs, outputs, density
CASES = [(64, 40, 30, 0.2), (37, 20, 12, 0.5), (5, 7, 9, 1.0), (1, 3, 1, 0.4), (17, 6, 8, 0.0), (130, 90, 4, 0.1)]


def absolute(x: Tensor, weight: Tensor) -> Tensor:
    """The sums of the magnitudes that are added up, to which rounding is relative."""
    return F.linear(x.abs(), weight.abs())


@pytest.mark.parametrize("reference", [pytest.param(False, marks=needs_kernels), True])
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_those_of_the_dense_masked_layer(
    case: tuple[int, int, int, float], reference: bool
) -> None:
    num_images, inputs, outputs, density = case
    g = torch.Generator().manual_seed(inputs)
    mask = torch.rand(outputs, inputs, generator=g) < density
    x, weight = torch.randn(num_images, inputs, generator=g), torch.randn(outputs, inputs, generator=g) * mask
    bias, dy = torch.randn(outputs, generator=g), torch.randn(num_images, outputs, generator=g)
    for t in (x, weight, bias):
        t.requires_grad_()
    exact = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    right = F.linear(*exact)
    expected = torch.autograd.grad(right, exact, dy.double())
    with on_reference() if reference else nullcontext():
        y = MaskedLinear.of(mask)(x, weight, bias)
        dx, dw, db = torch.autograd.grad(y, (x, weight, bias), dy)
    with torch.no_grad():
        limit = (inputs + 2) * ROUNDING
        assert ((y - right).abs() <= limit * (absolute(x, weight) + bias.abs()) + 1e-30).all()
        assert ((dx - expected[0]).abs() <= (outputs + 2) * ROUNDING * absolute(dy, weight.t()) + 1e-30).all()
        summed = (num_images + 2) * ROUNDING
        assert ((dw - expected[1] * mask).abs() <= summed * absolute(dy.t(), x.t()) + 1e-30).all()
        assert ((db - expected[2]).abs() <= summed * dy.abs().sum(0) + 1e-30).all()
        assert not dw[~mask].any()


@needs_kernels
def test_threads_change_no_bit_of_a_sparse_layer() -> None:
    g = torch.Generator().manual_seed(0)
    mask = torch.rand(300, 200, generator=g) < 0.1
    x, dy = torch.randn(60, 200, generator=g), torch.randn(60, 300, generator=g)
    weight = (torch.randn(300, 200, generator=g) * mask).requires_grad_()
    layer, made, before = MaskedLinear.of(mask), [], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            y = layer(leaf, weight)
            made.append([y, *torch.autograd.grad(y, (leaf, weight), dy)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


@needs_kernels
def test_operators_of_sparse_layers_keep_their_contract_with_torch() -> None:
    p = SparsityPattern.of(torch.rand(4, 6, 1, 1) < 0.5)
    x, dy, values = torch.randn(6, 5), torch.randn(4, 5), torch.randn(len(p.index))
    ops = torch.ops.lthbench
    library.opcheck(ops.sparse_linear.default, (x, values, p.col_indices, p.row_ptr, torch.ones(4)))
    library.opcheck(ops.sparse_linear_input_gradient.default, (dy, values, p.row_indices, p.col_ptr, p.order))
    library.opcheck(ops.sparse_linear_weight_gradient.default, (x, dy, p.col_indices, p.row_ptr))
