"""The interpolation operators: the kernels give the reference's results, and lines obey their laws."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, library

from lthbench.ops import convolution, interpolation
from lthbench.ops._library import kernels_available
from lthbench.ops.convolution import (
    SparseFilters,
    SparsityPattern,
    from_blocked,
    sparse_convolution,
    sparse_convolution_pair,
    to_blocked,
    winograd_convolution,
)
from lthbench.ops.interpolation import count_errors, lerp_linear, lerp_relu, lerp_stacked

needs_kernels = pytest.mark.skipif(not kernels_available("cpu"), reason="the extension is not built")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")),
]


@pytest.fixture
def reference(monkeypatch):
    """A call of an operator's plain PyTorch reference."""

    def call(operator, *arguments, **options):
        with monkeypatch.context() as patch:
            for module in (interpolation, convolution):
                patch.setattr(module, "kernels_available", lambda device: False)
            return operator(*arguments, **options)

    return call


def tensors(sizes: list[int], seed: int, device: str = "cpu") -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator).to(device) for n in sizes]


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
@given(st.lists(st.integers(0, 20_000), max_size=5), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=4))
@settings(max_examples=25)
def test_weights_on_the_line_are_the_references_bit_for_bit(device, sizes, points):
    a, b, alphas = tensors(sizes, 1, device), tensors(sizes, 2, device), torch.tensor(points, device=device)
    got, relu = lerp_stacked(a, b, alphas), [lerp_relu(x, y, alphas) for x, y in zip(a, b, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpolation, "kernels_available", lambda device: False)
        assert all(torch.equal(x, y) for x, y in zip(got, lerp_stacked(a, b, alphas), strict=True))
    assert all(torch.equal(x.relu(), y) for x, y in zip(got, relu, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_the_line_starts_at_a_ends_at_b_and_stays_where_they_agree(device):
    a, b = tensors([1000], 1, device), tensors([1000], 2, device)
    b[0][::3] = a[0][::3]
    line = lerp_stacked(a, b, torch.tensor([0.0, 0.3, 0.7, 1.0], device=device))[0]
    assert torch.equal(line[0], a[0])
    assert torch.equal(line[3], b[0])
    assert torch.equal(line[:, ::3], a[0][::3].expand(4, -1))


@pytest.mark.parametrize("device", DEVICES)
def test_walking_the_line_backwards_visits_the_same_networks(device):
    a, b = tensors([999], 1, device), tensors([999], 2, device)
    alphas = torch.arange(1, 32, 2, device=device) / 32  # 1 - alpha is exact, and 1/2 is not among them
    forward, backward = lerp_stacked(a, b, alphas)[0], lerp_stacked(b, a, 1 - alphas)[0]
    assert torch.equal(forward, backward)


def test_nan_survives_the_rectifier():
    a = torch.tensor([float("nan"), -1.0, 1.0])
    assert lerp_relu(a, a, torch.tensor([0.5]))[0].isnan().tolist() == [True, False, False]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_networks, num_rows, num_classes", [(1, 1, 1), (3, 250, 10), (2, 67, 1000), (2, 0, 10)])
def test_loss_and_error_are_those_of_cross_entropy_and_argmax(device, num_networks, num_rows, num_classes):
    generator = torch.Generator().manual_seed(0)
    logits = (10 * torch.randn(num_networks, num_rows, num_classes, generator=generator)).to(device)
    labels = torch.randint(num_classes, (num_rows,), generator=generator).to(device)
    logits[:, ::2] = logits[:, ::2].round()  # ties for the highest logit
    loss_sum, num_errors = count_errors(logits, labels)
    for k in range(num_networks):
        loss = torch.nn.functional.cross_entropy(logits[k].double(), labels, reduction="sum")
        torch.testing.assert_close(loss_sum[k], loss, rtol=1e-6, atol=1e-6)
        assert int(num_errors[k]) == int((logits[k].argmax(1) != labels).sum())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "row, label, error",
    [
        ([float("nan"), 1.0, 2.0], 0, 0),
        ([3.0, float("nan"), float("nan")], 1, 0),
        ([3.0, float("nan"), 2.0], 0, 1),
        ([1.0, float("inf"), 2.0], 1, 0),
        ([1.0, 2.0, 3.0], 3, 1),
        ([1.0, 2.0, 3.0], -1, 1),
    ],
)
def test_what_is_no_number_gives_a_loss_of_nan_and_a_defined_label(device, row, label, error, reference):
    logits, labels = torch.tensor([[row]], device=device), torch.tensor([label], device=device)
    for counts in (count_errors(logits, labels), reference(count_errors, logits, labels)):
        assert counts.loss_sum.isnan().all()
        assert counts.num_errors.tolist() == [error]


def test_extreme_logits_do_not_overflow(reference):
    logits = torch.tensor([[[3e38, -3e38, 0.0], [-1e4, -2e4, -3e4], [0.0, 1e-40, -1e-40]]])
    labels = torch.tensor([0, 0, 1])
    got, expected = count_errors(logits, labels), reference(count_errors, logits, labels)
    torch.testing.assert_close(got.loss_sum, expected.loss_sum)
    assert torch.equal(got.num_errors, expected.num_errors)


@needs_kernels
def test_results_do_not_depend_on_the_number_of_threads():
    logits, labels = torch.randn(7, 1000, 10), torch.randint(10, (1000,))
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(count_errors(logits, labels))
    torch.set_num_threads(before)
    assert torch.equal(results[0].loss_sum, results[1].loss_sum)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_rows, num_hidden, num_columns", [(1, 1, 16), (13, 30, 32), (97, 300, 112), (0, 5, 16)])
@pytest.mark.parametrize("relu", [False, True])
def test_a_second_layer_is_the_product_with_the_rectified_line(
    device, num_rows, num_hidden, num_columns, relu, reference
):
    g = torch.Generator().manual_seed(0)
    alphas = torch.tensor([0.0, 0.3, 1.0], device=device)
    a, b = (torch.randn(num_rows, num_hidden, generator=g).to(device) for _ in range(2))
    weight = torch.randn(3, num_hidden, num_columns, generator=g).to(device) / num_hidden**0.5
    bias = torch.randn(3, num_columns, generator=g).to(device)
    got = lerp_linear(a, b, alphas, weight, bias, relu=relu)
    expected = reference(lerp_linear, a, b, alphas, weight, bias, relu=relu)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@given(
    st.integers(1, 33),
    st.sampled_from([(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (3, 3, 1), (3, 1, 0), (2, 1, 1)]),
    st.sampled_from([(8, 8), (4, 12), (7, 5), (16, 32)]),
    st.sampled_from([5, 8]),
    st.floats(0, 1) | st.just(1.0),
    st.booleans(),
)
@settings(max_examples=60)
def test_a_sparse_convolution_is_the_convolution_with_the_masked_weight(
    count, geometry, plane, outputs, density, residual
):
    kernel, stride, padding = geometry
    g = torch.Generator().manual_seed(count)
    x = torch.randn(count, 3, *plane, generator=g)
    weight = torch.randn(outputs, 3, kernel, kernel, generator=g)
    weight *= torch.rand(weight.shape, generator=g) < density
    bias = torch.randn(outputs, generator=g)
    expected = torch.nn.functional.conv2d(x, weight, bias, stride, padding)
    other = torch.randn(expected.shape, generator=g)
    expected = (expected + other).relu() if residual else expected
    pattern = SparsityPattern.of(weight != 0)
    blocks = sparse_convolution(
        to_blocked(x),
        weight.reshape(-1)[pattern.index],
        bias,
        pattern,
        kernel,
        stride,
        padding,
        to_blocked(other) if residual else None,
        relu=residual,
    )
    torch.testing.assert_close(from_blocked(blocks)[:count], expected, rtol=1e-5, atol=1e-5)
    border = blocks.clone()
    border[:, :, 1:-1, 1:-1] = 0
    assert not border.any()


PAIRS = [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (2, 1, 1), (1, 1, 1), (2, 1, 0), (3, 3, 1)]


@pytest.mark.parametrize("plane", [(32, 32), (16, 16), (8, 8), (7, 9), (4, 4), (36, 16)])
@pytest.mark.parametrize("second", PAIRS)
def test_a_pair_of_sparse_convolutions_has_the_bits_of_one_after_the_other(plane, second):
    for first in PAIRS[:5]:
        g = torch.Generator().manual_seed(0)
        x = to_blocked(torch.randn(17, 3, *plane, generator=g))
        layers = []
        for inputs, outputs, geometry in ((3, 24, first), (24, 5, second)):
            kept = torch.rand(outputs, inputs, geometry[0], geometry[0], generator=g) < 0.3
            pattern = SparsityPattern.of(kept)
            values, bias = torch.randn(len(pattern.index), generator=g), torch.randn(outputs, generator=g)
            layers.append(SparseFilters(values, bias, pattern, *geometry, inputs == 3))
        a, b = layers
        between = sparse_convolution(x, *a[:-1], relu=True)
        if min(between.shape[2:4]) - 2 + 2 * second[2] < second[0]:
            continue
        expected = sparse_convolution(between, *b[:-1])
        assert torch.equal(sparse_convolution_pair(x, a, b), expected)
        residual = torch.randn(expected.shape, generator=g)
        got = sparse_convolution_pair(x, a, b._replace(relu=True), residual)
        assert torch.equal(got, sparse_convolution(between, *b[:-1], residual, relu=True))


def test_the_reference_of_a_sparse_convolution_agrees(reference):
    g = torch.Generator().manual_seed(0)
    x, weight, bias = torch.randn(20, 4, 8, 8, generator=g), torch.randn(6, 4, 3, 3, generator=g), torch.randn(6)
    pattern = SparsityPattern.of(weight > 0)
    arguments = (to_blocked(x), weight.reshape(-1)[pattern.index], bias, pattern, 3, 1, 1)
    got = from_blocked(sparse_convolution(*arguments, relu=True))[:20]
    expected = from_blocked(reference(sparse_convolution, *arguments, relu=True))[:20]
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": torch.zeros(1, 2, 6, 6, 8)}, "input has no shape"),
        ({"values": torch.zeros(1)}, "col_indices has 2 entries, values 1"),
        ({"values": torch.zeros(2).double()}, "values has dtype"),
        ({"bias": torch.zeros(4)}, "row_ptr has 4 entries"),
        ({"kernel": 9}, "kernel is 9, larger"),
        ({"padding": 2}, "padding are 3, 1 and 2"),
        ({"col_indices": torch.tensor([0, 18]).int()}, r"col_indices\[1\] is 18, expected 0 to 17"),
        ({"row_ptr": torch.tensor([0, 2, 1, 2]).int()}, "row_ptr decreases at entry 2"),
        ({"row_ptr": torch.tensor([0, 1, 1, 1]).int()}, "row_ptr does not go from 0 to the 2"),
        ({"residual": torch.zeros(1, 3, 6, 5, 16)}, "residual has 5 entries in dimension 3, the output 6"),
    ],
)
def test_a_wrong_argument_of_a_sparse_convolution_is_named(change, message):
    arguments = {
        "x": torch.zeros(1, 2, 6, 6, 16),
        "values": torch.zeros(2),
        "col_indices": torch.tensor([0, 1]).int(),
        "row_ptr": torch.tensor([0, 1, 2, 2]).int(),
        "bias": torch.zeros(3),
        "residual": None,
        "kernel": 3,
        "stride": 1,
        "padding": 1,
        "relu": False,
    }
    with pytest.raises(RuntimeError, match=message):
        torch.ops.lthbench.sparse_convolution(*{**arguments, **change}.values())


@given(
    st.integers(1, 33),
    st.sampled_from([(8, 8), (1, 1), (7, 5), (4, 33), (16, 32)]),
    st.sampled_from([(1, 1), (3, 5), (16, 4), (70, 9)]),
    st.booleans(),
)
@settings(max_examples=40)
def test_a_winograd_convolution_is_the_convolution(count, plane, channels, residual):
    g = torch.Generator().manual_seed(count)
    inputs, outputs = channels
    x = torch.randn(count, inputs, *plane, generator=g)
    weight, bias = torch.randn(outputs, inputs, 3, 3, generator=g), torch.randn(outputs, generator=g)
    weight /= (9 * inputs) ** 0.5
    expected = torch.nn.functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    other = torch.randn(expected.shape, generator=g)
    expected = (expected + other).relu() if residual else expected
    added = to_blocked(other) if residual else None
    blocks = winograd_convolution(to_blocked(x), weight, bias, added, relu=residual)
    torch.testing.assert_close(from_blocked(blocks)[:count].double(), expected, rtol=0, atol=2e-5)
    border = blocks.clone()
    border[:, :, 1:-1, 1:-1] = 0
    assert not border.any()


def test_the_reference_of_a_winograd_convolution_agrees(reference):
    g = torch.Generator().manual_seed(0)
    x, weight, bias = torch.randn(20, 4, 7, 8, generator=g), torch.randn(6, 4, 3, 3, generator=g) / 6, torch.randn(6)
    arguments = (to_blocked(x), weight, bias, to_blocked(torch.randn(20, 6, 7, 8, generator=g)))
    got = winograd_convolution(*arguments, relu=True)
    expected = reference(winograd_convolution, *arguments, relu=True)
    torch.testing.assert_close(from_blocked(got)[:20], from_blocked(expected)[:20], rtol=0, atol=2e-5)
    assert got.shape == expected.shape


@needs_kernels
@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": torch.zeros(1, 2, 6, 6, 8)}, "input has no shape"),
        ({"weight": torch.zeros(3, 3, 3, 3)}, r"weight has shape \[3, 3, 3, 3\], expected \[O, I, 3, 3\]"),
        ({"weight": torch.zeros(3, 2, 5, 5)}, r"weight has shape \[3, 2, 5, 5\], expected \[O, I, 3, 3\]"),
        ({"weight": torch.zeros(3, 18)}, "weight is not contiguous with 4 dimensions"),
        ({"bias": torch.zeros(3).double()}, "bias has dtype"),
        ({"residual": torch.zeros(1, 3, 6, 5, 16)}, "residual has 5 entries in dimension 3, the output 6"),
    ],
)
def test_a_wrong_argument_of_a_winograd_convolution_is_named(change, message):
    arguments = {
        "x": torch.zeros(1, 2, 6, 6, 16),
        "weight": torch.zeros(3, 2, 3, 3),
        "bias": torch.zeros(3),
        "residual": None,
        "relu": False,
    }
    with pytest.raises(RuntimeError, match=message):
        torch.ops.lthbench.winograd_convolution(*{**arguments, **change}.values())


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_operators_keep_their_contract_with_torch(device):
    a, b, alphas = (
        tensors([5, 12], 1, device),
        tensors([5, 12], 2, device),
        torch.tensor([0.0, 0.5], device=device),
    )
    out = [x.new_zeros(2, *x.shape) for x in a]
    library.opcheck(torch.ops.lthbench.lerp_stacked_.default, (out, a, b, alphas, False))
    logits, labels = torch.randn(2, 6, 3, device=device), torch.randint(3, (6,), device=device)
    library.opcheck(torch.ops.lthbench.count_errors.default, (logits, labels))


@needs_kernels
def test_operators_of_the_cpu_keep_their_contract_with_torch():
    a, b, alphas, bias = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0.0, 0.5]), torch.randn(2, 16)
    arguments = (a, b, alphas, torch.randn(2, 4, 16), bias, True)
    library.opcheck(torch.ops.lthbench.lerp_linear.default, arguments)
    pattern = SparsityPattern.of(torch.ones(3, 2, 3, 3, dtype=torch.bool))
    operands = (
        to_blocked(torch.randn(2, 2, 5, 5)),
        torch.randn(54),
        pattern.col_indices,
        pattern.row_ptr,
        torch.randn(3),
    )
    library.opcheck(torch.ops.lthbench.sparse_convolution.default, (*operands, None, 3, 2, 1, True))
    second = SparsityPattern.of(torch.ones(2, 3, 1, 1, dtype=torch.bool))
    operands = *operands, 3, 2, 1, True, torch.randn(6), second.col_indices, second.row_ptr, torch.randn(2)
    library.opcheck(torch.ops.lthbench.sparse_convolution_pair.default, (*operands, None, 1, 1, 0, False))
    operands = (to_blocked(torch.randn(2, 2, 5, 5)), torch.randn(3, 2, 3, 3), torch.randn(3), None, True)
    library.opcheck(torch.ops.lthbench.winograd_convolution.default, operands)


@needs_kernels
def test_probes_keep_their_contract_with_torch():
    a, b, c, d = (torch.ones(5) for _ in range(4))
    library.opcheck(torch.ops.lthbench.probe_update_.default, (a, b, c, d))
    library.opcheck(torch.ops.lthbench.probe_fma.default, (torch.ones(1), 3))
    words = torch.tensor([3, 4], dtype=torch.int32)
    library.opcheck(torch.ops.lthbench.probe_read.default, (words,))
    assert int(torch.ops.lthbench.probe_read(words)) == 7


@needs_kernels
def test_every_operator_is_checked_for_its_contract_here():
    known = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names() if name.startswith("lthbench::")}
    sources = "".join(p.read_text() for p in Path(__file__).parent.glob("test_*.py"))
    # A line may end after the parenthesis.
    assert {
        n for n in known if not re.search(rf"opcheck\(\s*(torch\.)?(ops\.)+(lthbench\.)?{n}\.default", sources)
    } == set()


X, ALPHAS = torch.ones(3), torch.tensor([0.5])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([X], [], ALPHAS), "b has 0 tensors"),
        (([X], [torch.ones(4)], ALPHAS), r"b\[0\] has shape \(4,\)"),
        (([X], [X.double()], ALPHAS), r"b\[0\] has dtype torch.float64"),
        (([X], [X], ALPHAS.double()), "alphas is torch.float64"),
        (([X], [X], torch.ones(0)), "alphas is"),
        (([X], [X], ALPHAS, [X]), r"out\[0\] has shape \(3,\), expected \(1, 3\)"),
        (([X], [X], ALPHAS, [torch.ones(1, 6)[:, ::2]]), r"out\[0\] is not contiguous"),
        (([X], [X.to("meta")], ALPHAS), r"b\[0\] is on meta"),
    ],
)
def test_a_wrong_argument_of_lerp_stacked_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        lerp_stacked(*arguments)


@needs_kernels
def test_a_buffer_that_shares_memory_with_an_end_is_refused():
    a = torch.ones(3)
    with pytest.raises(RuntimeError, match=r"out\[0\] and a\[0\] overlap in memory"):
        lerp_stacked([a], [X], ALPHAS, [a.view(1, 3)])


@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (torch.ones(2, 3), torch.ones(3, dtype=torch.int64), "logits is"),
        (torch.ones(1, 3, 2).double(), torch.ones(3, dtype=torch.int64), "logits is torch.float64"),
        (torch.ones(1, 3, 2), torch.ones(2, dtype=torch.int64), "expected int64 .B. with B = 3"),
        (torch.ones(1, 3, 2), torch.ones(3), "labels is torch.float32"),
        (torch.ones(1, 3, 2), torch.ones(3, dtype=torch.int64, device="meta"), "labels is on meta"),
    ],
)
def test_a_wrong_argument_of_count_errors_is_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        count_errors(logits, labels)


def test_no_tensors_make_no_networks():
    assert lerp_stacked([], [], ALPHAS) == []
