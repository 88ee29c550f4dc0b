"""Pruning by rank: exactly k weights, the lowest flat index first among ties, the same bits everywhere."""

from __future__ import annotations

import contextlib
import math
import mmap

import numpy as np
import pytest
import torch
from devices import DEVICES, needs_kernels, reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library

from lthbench.ops import prune_lowest
from lthbench.ops.masks import is_dense, pack_mask, unpack_mask

SHAPES = [(300, 101), (64, 8, 3, 3), (7,), (0,), (33, 1)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def scores_of(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    x = torch.randn(shape, generator=generator)
    chance = torch.rand(shape, generator=generator)
    sign = torch.where(torch.rand(shape, generator=generator) < 0.5, 1.0, -1.0)
    return {
        "normal": x,
        "all ties": sign * 0.5,
        "mostly zeros": torch.where(chance < 0.9, sign * 0.0, x),
        "denormals": x * 1e-40,
        "grid": (x * 20).round() / 20,
        "nan and inf": torch.where(chance < 0.1, sign * math.nan, torch.where(chance < 0.2, sign * math.inf, x)),
        "same leading bits": 1.0 + x.abs() * 1e-6,
        "sorted": x.reshape(-1).sort().values.reshape(shape),
    }[kind]


KINDS = ["normal", "all ties", "mostly zeros", "denormals", "grid", "nan and inf", "same leading bits", "sorted"]


def make(kind, dtype=torch.float32, density=0.7, device="cpu", seed=0):
    g = torch.Generator().manual_seed(seed)
    scores = [scores_of(kind, s, g).to(dtype).to(device) for s in SHAPES]
    masks = [(torch.rand(s, generator=g) < density).to(device) for s in SHAPES]
    return scores, masks


def by_stable_sort(scores, masks, k, magnitude):
    """The rule itself: sort the survivors stably, clear the first k."""
    flat = torch.cat([s.float().reshape(-1) for s in scores])
    alive = torch.cat([m.reshape(-1) for m in masks]).clone()
    places = alive.nonzero().reshape(-1)
    values = flat[places].abs() if magnitude else flat[places]
    alive[places[torch.sort(values, stable=True).indices[:k]]] = False
    return alive


def flat(masks):
    return torch.cat([m.reshape(-1) for m in masks])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("magnitude", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_those_of_a_stable_sort(kind, dtype, magnitude, device):
    for density in (1.0, 0.2):
        scores, masks = make(kind, dtype, density, device)
        survivors = int(flat(masks).sum())
        for k in (0, 1, survivors // 5, survivors - 1, survivors):
            pruned = prune_lowest(scores, masks, k, magnitude=magnitude)
            assert torch.equal(flat(pruned.masks), by_stable_sort(scores, masks, k, magnitude))
            assert survivors - int(flat(pruned.masks).sum()) == k


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_kernel_and_reference_report_the_same(kind, device):
    scores, masks = make(kind, device=device)
    for k in (0, 100, 20_000):
        for groups, num in ((None, k), ([0, 1, 0, 1, 2], [k, 3, 1])):
            got = prune_lowest(scores, masks, num, groups=groups)
            with reference():
                expected = prune_lowest(scores, masks, num, groups=groups)
            assert torch.equal(flat(got.masks), flat(expected.masks))
            torch.testing.assert_close(got.thresholds, expected.thresholds, rtol=0, atol=0, equal_nan=True)
            assert got.num_nan == expected.num_nan


@pytest.mark.parametrize("device", DEVICES)
def test_arguments_are_not_changed(device):
    scores, masks = make("normal", device=device)
    before = [s.clone() for s in scores], [m.clone() for m in masks]
    prune_lowest(scores, masks, 1000)
    assert all(map(torch.equal, scores, before[0])) and all(map(torch.equal, masks, before[1]))


@pytest.mark.parametrize("device", DEVICES)
def test_the_number_of_nan_survivors_is_reported(device):
    scores = [torch.tensor([1.0, math.nan, 2.0, math.nan], device=device)]
    masks = [torch.tensor([True, True, True, False], device=device)]
    pruned = prune_lowest(scores, masks, 2)
    assert pruned.num_nan == 1
    assert pruned.masks[0].tolist() == [False, True, False, False]


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last_scores_break_ties_by_their_logical_index(device):
    scores = [torch.full((4, 3, 2, 2), 0.5, device=device).to(memory_format=torch.channels_last)]
    masks = [torch.ones(4, 3, 2, 2, dtype=torch.bool, device=device)]
    pruned = prune_lowest(scores, masks, 5)
    assert pruned.masks[0].reshape(-1).nonzero().reshape(-1).tolist() == list(range(5, 48))


@pytest.mark.parametrize("device", DEVICES)
def test_per_layer_pruning_is_global_pruning_of_each_tensor_alone(device):
    scores, masks = make("grid", device=device)
    counts = [int(m.sum()) // 3 for m in masks]
    together = prune_lowest(scores, masks, counts, groups=range(len(scores)))
    alone = [prune_lowest([s], [m], k).masks[0] for s, m, k in zip(scores, masks, counts, strict=True)]
    assert all(map(torch.equal, together.masks, alone))


@pytest.mark.parametrize("device", DEVICES)
def test_masks_come_back_as_they_went_in_bool_and_in_shape(device):
    scores, masks = make("normal", device=device)
    scores[1], masks[1] = (t.to(memory_format=torch.channels_last) for t in (scores[1], masks[1]))
    scores[0], masks[0] = (t.t().contiguous().t() for t in (scores[0], masks[0]))
    pruned = prune_lowest(scores, masks, 5000)
    for before, after in zip(masks, pruned.masks, strict=True):
        assert (after.dtype, after.shape, after.device) == (torch.bool, before.shape, before.device)
        assert not (after & ~before).any()
    assert torch.equal(flat(pruned.masks), by_stable_sort(scores, masks, 5000, True))


def test_an_empty_list_has_nothing_to_prune():
    assert prune_lowest([], [], 0).masks == []
    assert prune_lowest([], [], [0, 0], groups=[]).thresholds == [-math.inf, -math.inf]
    with pytest.raises(ValueError, match=r"num_pruned is 1, expected 0"):
        prune_lowest([], [], 1)
    with pytest.raises(ValueError, match=r"num_pruned is \[0, 1\], expected 0"):
        prune_lowest([], [], [0, 1], groups=[])


@needs_kernels
def test_operators_refuse_lists_that_tell_no_device():
    ops = torch.ops.lthbench
    for call in (
        lambda: ops.prune_lowest([], [], [], [0], True),
        lambda: ops.count_survivors([]),
        lambda: ops.masked_sgd_([], [], [], [], [], 0.1, 0.0, 0.0, 0.0, 0.0, False, False),
    ):
        with pytest.raises(NotImplementedError, match="requires a non-empty list of Tensors"):
            call()


@needs_kernels
@pytest.mark.slow
def test_more_than_two_billion_weights_have_a_mask():
    numel = 2**31 + 40
    memory = mmap.mmap(-1, numel)  # pages of zeros, which take no memory as long as they are only read
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    for i in (5, 2**31 - 1, numel - 3):
        memory[i] = 1
    words = pack_mask(torch.frombuffer(memory, dtype=torch.bool))
    assert words.numel() == -(-numel // 32)
    assert {int(i) for i in words.nonzero()} == {0, 2**26 - 1, (numel - 3) // 32}
    assert torch.ops.lthbench.count_survivors([words]).tolist() == [3]


def by_walking(scores, masks, k, min_kept):
    """Minimum kept per tensor, word for word: walk the survivors in order, pass over tensors at their minimum."""
    order = sorted(
        (abs(float(v)), t, i)
        for t, (s, m) in enumerate(zip(scores, masks, strict=True))
        for i, (v, alive) in enumerate(zip(s.reshape(-1).tolist(), m.reshape(-1).tolist(), strict=True))
        if alive
    )
    left = [int(m.sum()) for m in masks]
    out = [m.clone().reshape(-1) for m in masks]
    for _, t, i in order:
        if k and left[t] > min_kept[t]:
            out[t][i] = False
            left[t] -= 1
            k -= 1
    return [o.reshape(m.shape) for o, m in zip(out, masks, strict=True)]


@given(
    data=st.lists(st.lists(st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.0, 2.0]), max_size=12), min_size=1, max_size=4),
    minimum=st.integers(0, 5),
    fraction=st.floats(0, 1),
)
@settings(max_examples=60)
def test_no_tensor_keeps_fewer_than_its_minimum(data, minimum, fraction):
    scores = [torch.tensor(values) for values in data]
    masks = [torch.ones(len(values), dtype=torch.bool) for values in data]
    k = int(fraction * sum(max(0, len(values) - minimum) for values in data))
    pruned = prune_lowest(scores, masks, k, min_kept=minimum)
    assert all(map(torch.equal, pruned.masks, by_walking(scores, masks, k, [minimum] * len(data))))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_masks_do_not_depend_on_the_thread_count(num_threads):
    g = torch.Generator().manual_seed(3)
    scores, masks = [torch.randn(700, 500, generator=g)], [torch.rand(700, 500, generator=g) < 0.5]
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        pruned = prune_lowest(scores, masks, 50_000)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(flat(pruned.masks), by_stable_sort(scores, masks, 50_000, True))


def test_a_bracket_that_misses_is_widened():
    # The sample sees one survivor in hundreds; outliers packed where it may look away still get their rank.
    weights = torch.arange(1.0, 2_000_001.0)
    weights[::2] = 1e-3
    for k in (999_999, 1_000_000, 1_000_001):
        pruned = prune_lowest([weights], [torch.ones(2_000_000, dtype=torch.bool)], k)
        assert torch.equal(
            pruned.masks[0], by_stable_sort([weights], [torch.ones(2_000_000, dtype=torch.bool)], k, True)
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows", [1, 7, 400])
def test_thousands_that_share_two_values_inside_the_bracket(rows, device):
    # The bracket has 24,000 candidates; a sixth of them each of two values, and the order may be periodic.
    numel, k = 400_400, 80_000
    scores = 1 + torch.arange(numel) / numel
    scores[k - 4000 : k] = scores[k - 1].item()
    scores[k : k + 4000] = scores[k].item()
    scores = scores.reshape(rows, -1).T.reshape(-1).to(device)
    mask = torch.ones(numel, dtype=torch.bool, device=device)
    for rank in (k - 4001, k - 300, k - 1, k, k + 1, k + 300, k + 4001):
        pruned = prune_lowest([scores], [mask], rank)
        assert torch.equal(pruned.masks[0], by_stable_sort([scores], [mask], rank, True))


@pytest.mark.parametrize("device", DEVICES)
def test_a_sample_that_misleads_leaves_the_masks_as_they_are(device):
    # Small wherever the CUDA kernel looks (sample_place in csrc/cuda/threshold/select.h), so that its bracket misses.
    numel, samples = 500_000, 16_384
    j = np.arange(samples, dtype=np.uint64)
    x = (j * 0x9E3779B9 + 1) & 0xFFFFFFFF
    x = ((x ^ x >> 16) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ x >> 13) * 0xC2B2AE35) & 0xFFFFFFFF
    places = (j * numel // samples + (x ^ x >> 16) % (numel // samples)).astype(np.int64)
    scores = torch.arange(1.0, numel + 1)
    scores[torch.from_numpy(places)] = torch.arange(samples) * 1e-5
    scores, mask = scores.to(device), torch.ones(numel, dtype=torch.bool, device=device)
    pruned = prune_lowest([scores], [mask], numel // 2)
    assert torch.equal(pruned.masks[0], by_stable_sort([scores], [mask], numel // 2, True))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("numel", [0, 1, 31, 32, 33, 1000, 100_003])
def test_packed_masks_are_one_bit_a_weight(numel, device):
    mask = (torch.rand(numel, generator=torch.Generator().manual_seed(numel)) < 0.3).to(device)
    words = pack_mask(mask)
    assert words.numel() == -(-numel // 32)
    assert torch.equal(unpack_mask(words, numel), mask)
    with reference():
        assert torch.equal(pack_mask(mask), words) and torch.equal(unpack_mask(words, numel), mask)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": []}, "masks has 0"),
        ({"num_pruned": 10_000_000}, "num_pruned is 10000000"),
        ({"num_pruned": -1}, "num_pruned is -1"),
        ({"groups": [0]}, "groups has 1"),
        ({"groups": [0, 0, 9, 0, 0]}, r"groups\[2\] is 9"),
        ({"num_pruned": [1, 2]}, "without groups"),
        ({"min_kept": [1]}, "min_kept has 1"),
    ],
)
def test_a_wrong_argument_is_named(change, message):
    scores, masks = make("normal")
    arguments = {"scores": scores, "masks": masks, "num_pruned": 1} | change
    with pytest.raises(ValueError, match=message):
        prune_lowest(**arguments)


def test_wrong_tensors_are_named():
    x, m = torch.randn(4), torch.ones(4, dtype=torch.bool)
    for scores, masks, message in (
        ([x.double()], [m], r"scores\[0\] has dtype torch.float64"),
        ([x, x], [m, m[:2]], r"scores\[1\] has shape \(4,\), masks\[1\] \(2,\)"),
        ([x], [m.float()], r"masks\[0\] has dtype torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            prune_lowest(scores, masks, 1)


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_the_operator_checks_before_it_reads(device):
    op = torch.ops.lthbench.prune_lowest
    x = torch.randn(64, device=device)
    m = pack_mask(torch.ones(64, dtype=torch.bool, device=device))
    for arguments, message in (
        (([x], [m[:1]], [0], [1], True), r"masks\[0\] has 1 words, expected 2"),
        (([x.view(8, 8).t()], [m], [0], [1], True), r"scores\[0\] is not contiguous"),
        (([x], [m], [1], [1], True), r"groups\[0\] is 1"),
        (([x], [m.float()], [0], [1], True), r"masks\[0\] has dtype"),
        (([x], [m], [0], [65], True), r"num_pruned\[0\] is 65, more than the group has survivors"),
        (([x, x], [m], [0], [1], True), "masks has 1 tensors"),
    ):
        with pytest.raises(RuntimeError, match=message):
            op(*arguments)


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    scores, masks = make("normal", device=device)
    words = [pack_mask(m) for m in masks]
    ops = torch.ops.lthbench
    library.opcheck(ops.pack_mask.default, (masks[0],))
    library.opcheck(ops.unpack_mask.default, (words[0], masks[0].numel()))
    library.opcheck(ops.count_survivors.default, (words,))
    library.opcheck(ops.prune_lowest.default, (scores, words, [0, 0, 1, 0, 1], [100, 5], True))


def test_a_mask_on_another_device_than_its_scores_is_refused() -> None:
    scores, masks = [torch.ones(3)] * 2, [torch.ones(3, dtype=torch.bool, device=where) for where in ("cpu", "meta")]
    with pytest.raises(ValueError, match=r"scores\[1\] and masks\[1\] must all lie on one device"):
        prune_lowest(scores, masks, 1)


@pytest.mark.parametrize(
    ("size", "strides", "dense"),
    [((3, 1, 2), (1, 100, 3), True), ((3, 2), (1, 3), True), ((3, 2), (1, 4), False), ((3, 2), (0, 1), False)],
)
def test_elements_without_gaps_or_overlap_are_dense_whatever_a_dimension_of_one_strides(
    size: tuple[int, ...], strides: tuple[int, ...], dense: bool
) -> None:
    assert is_dense(torch.empty_strided(size, strides)) is dense


@pytest.mark.parametrize("door", [contextlib.nullcontext, reference])
def test_a_group_without_tensors_prunes_nothing_and_has_no_threshold(door):
    with door():
        pruned = prune_lowest([torch.tensor([3.0, 1.0])], [torch.ones(2, dtype=torch.bool)], [0, 1, 0], groups=[1])
    assert (pruned.thresholds, pruned.threshold, pruned.num_nan) == ([-math.inf, 1.0, -math.inf], 1.0, 0)
    assert pruned.masks[0].tolist() == [True, False]


@pytest.mark.parametrize("door", [contextlib.nullcontext, reference])
def test_the_largest_threshold_is_that_of_a_group_whose_nan_was_pruned(door):
    scores = [torch.tensor([5.0, 1.0]), torch.tensor([math.nan, 1.0])]
    masks = [torch.ones(2, dtype=torch.bool)] * 2
    for groups in ([0, 1], [1, 0]):
        with door():
            pruned = prune_lowest(scores, masks, [2, 2], groups=groups)
        assert math.isnan(pruned.threshold) and pruned.num_nan == 1
        assert sorted(map(str, pruned.thresholds)) == ["5.0", "nan"]


@pytest.mark.parametrize("door", [contextlib.nullcontext, reference])
def test_tensors_at_their_minimum_leave_the_pruning_to_the_rest_of_their_group(door):
    scores = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0]), torch.tensor([0.5, 0.6])]
    masks = [torch.ones(len(s), dtype=torch.bool) for s in scores]
    with door():
        pruned = prune_lowest(scores, masks, [3, 1], groups=[0, 0, 1], min_kept=[2, 1, 0])
    assert [m.tolist() for m in pruned.masks] == [[False, True, True], [False, False, True], [False, True]]
    assert pruned.thresholds[1] == pytest.approx(0.5)
    with door(), pytest.raises(ValueError, match=r"num_pruned\[0\] is 4, expected 0 to the 3 survivors"):
        prune_lowest(scores, masks, [4, 0], groups=[0, 0, 1], min_kept=[2, 1, 0])
