"""Exact pruning by rank: clear the masks of exactly k survivors with the lowest scores.

The rule (every implementation gives the same masks, bit for bit): survivors are ordered by
(score, flat index in parameter order); the first ``num_pruned`` of them are cleared. So ties are
pruned at the lowest flat index first. NaN ranks above +inf and is never pruned before a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lthbench.ops import reference
from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available
from lthbench.ops.masks import pack_mask, unpack_mask

SCORE_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Pruned(NamedTuple):
    """New masks, the score of the last pruned weight (-inf when none was), and the NaN scores seen.

    With groups, ``threshold`` is the largest of ``thresholds``, which holds one per group. A weight that
    ``min_kept`` saved may lie below them.
    """

    masks: list[Tensor]
    threshold: float
    num_nan: int
    thresholds: list[float] = []  # noqa: RUF012  (never changed)


def prune_lowest(
    scores: Sequence[Tensor],
    masks: Sequence[Tensor],
    num_pruned: int | Sequence[int],
    *,
    magnitude: bool = True,
    groups: Sequence[int] | None = None,
    min_kept: int | Sequence[int] = 0,
) -> Pruned:
    """Clear exactly ``num_pruned`` more mask entries: the survivors with the lowest |score| over all tensors.

    Args:
        scores: one tensor per prunable parameter, any shape; float32, bfloat16 or float16. The weights for
            magnitude pruning; anything else (movement |w| - |w0|, random numbers) with ``magnitude=False``.
        masks: bool tensors of the same shapes; True marks a survivor. They are not changed.
        num_pruned: how many survivors to clear, 0 <= num_pruned <= number of survivors; with ``groups``, one
            number per group.
        magnitude: order by |score| (magnitude pruning); False orders by the signed score.
        groups: the group of each tensor, an index into ``num_pruned``: the rule holds within each group. None
            is one group of all tensors (global pruning); ``range(len(scores))`` is per-layer pruning.
        min_kept: survivors that each tensor keeps at least (one number, or one per tensor; a tensor with fewer
            keeps all). Tensors at their minimum are passed over, and the rest of their group is pruned instead.

    Raises:
        ValueError: lengths, shapes, dtypes or devices disagree, or num_pruned is out of range.
        TypeError: scores or masks are no sequences of tensors.

    Source: Frankle et al. 2020 (arXiv 1912.05671), algorithm 2: the lowest magnitudes are pruned globally.

    >>> import torch, lthbench
    >>> weights = [torch.tensor([[0.5, -0.1], [0.3, 0.0]]), torch.tensor([0.2, -0.4])]  # [2, 2] and [2]
    >>> masks = [torch.ones_like(weight, dtype=torch.bool) for weight in weights]
    >>> pruned = lthbench.prune_lowest(weights, masks, 3)
    >>> pruned.masks
    [tensor([[ True, False],
            [ True, False]]), tensor([False,  True])]

    Equivalent, where no two magnitudes are equal and nothing was pruned before, to

    >>> magnitudes = torch.cat([weight.abs().flatten() for weight in weights])
    >>> threshold = magnitudes.kthvalue(3).values
    >>> [torch.equal(weight.abs() > threshold, mask) for weight, mask in zip(weights, pruned.masks)]
    [True, True]
    """
    _check_sequences(scores=scores, masks=masks)
    group_of = [0] * len(scores) if groups is None else list(groups)
    counts = [num_pruned] if isinstance(num_pruned, int) else list(num_pruned)
    _check_tensors(scores, masks)
    _check_groups(scores, groups, group_of, counts)
    if not scores:
        if any(counts):
            raise ValueError(f"num_pruned is {num_pruned}, expected 0: scores holds no tensor")
        return Pruned([], float("-inf"), 0, [float("-inf")] * len(counts))
    if kernels_available(scores[0].device):
        rule: _Rule = _KernelRule(scores, masks, magnitude)
    else:
        rule = _ReferenceRule(scores, masks, magnitude)
    minimum = [min_kept] * len(scores) if isinstance(min_kept, int) else list(min_kept)
    if any(kept < 0 for kept in minimum):
        raise ValueError(f"min_kept is {min_kept}, expected 0 or more")
    if len(minimum) != len(scores):
        raise ValueError(
            f"min_kept has {len(minimum)} numbers for {len(scores)} tensors; give one each, or a single one"
        )
    caps = [max(0, before - kept) for before, kept in zip(rule.survivors, minimum, strict=True)]
    for g, count in enumerate(counts):
        available = sum(cap for cap, of in zip(caps, group_of, strict=True) if of == g)
        if not 0 <= count <= available:
            name = "num_pruned" if groups is None else f"num_pruned[{g}]"
            raise ValueError(f"{name} is {count}, expected 0 to the {available} survivors that may be pruned")
    return _prune_within(rule, group_of, counts, caps)


class _Rule:
    """The rule on fixed scores and masks; groups and counts are given at each call."""

    survivors: list[int]

    def __call__(self, groups: list[int], counts: list[int]) -> tuple[list[Tensor], list[float], list[int], int]:
        """New masks, one threshold per group, the number pruned in each tensor, and the number of NaN scores."""
        raise NotImplementedError


class _KernelRule(_Rule):
    def __init__(self, scores: Sequence[Tensor], masks: Sequence[Tensor], magnitude: bool) -> None:
        self.scores = [s.detach().contiguous() for s in scores]
        self.shapes = [m.shape for m in masks]
        self.words = [pack_mask(m.contiguous()) for m in masks]
        self.magnitude = magnitude
        self.survivors = torch.ops.lthbench.count_survivors(self.words).tolist()

    def __call__(self, groups: list[int], counts: list[int]) -> tuple[list[Tensor], list[float], list[int], int]:
        words, thresholds, tally = torch.ops.lthbench.prune_lowest(
            self.scores, self.words, groups, counts, self.magnitude
        )
        pieces = words.split([w.numel() for w in self.words])
        masks = [unpack_mask(w, s.numel()).view(s) for w, s in zip(pieces, self.shapes, strict=True)]
        return masks, thresholds.tolist(), tally[:, 0].tolist(), int(tally[:, 1].sum())


class _ReferenceRule(_Rule):
    def __init__(self, scores: Sequence[Tensor], masks: Sequence[Tensor], magnitude: bool) -> None:
        self.scores, self.masks, self.magnitude = list(scores), list(masks), magnitude
        self.survivors = [int(m.sum()) for m in masks]

    def __call__(self, groups: list[int], counts: list[int]) -> tuple[list[Tensor], list[float], list[int], int]:
        masks, thresholds, total_nan = list(self.masks), [], 0
        for g, count in enumerate(counts):
            members = [i for i, of in enumerate(groups) if of == g]
            pruned, threshold, num_nan = reference.prune_lowest(
                [self.scores[i] for i in members], [self.masks[i] for i in members], count, self.magnitude
            )
            thresholds.append(threshold)
            total_nan += num_nan
            for i, mask in zip(members, pruned, strict=True):
                masks[i] = mask
        num_pruned = [before - int(m.sum()) for before, m in zip(self.survivors, masks, strict=True)]
        return masks, thresholds, num_pruned, total_nan


def _prune_within(rule: _Rule, group_of: list[int], counts: list[int], caps: list[int]) -> Pruned:
    """Apply the rule with at most ``caps[i]`` weights pruned in tensor i.

    A tensor over its cap stays over it when others are capped too, since that only raises the threshold. So
    each round moves every tensor over its cap into a group of its own, until none is over.
    """
    groups, wanted = list(group_of), list(counts)
    while True:
        masks, thresholds, num_pruned, num_nan = rule(groups, wanted)
        over = [i for i, (n, cap) in enumerate(zip(num_pruned, caps, strict=True)) if n > cap]
        if not over:
            of_groups = thresholds[: len(counts)]
            return Pruned(masks, max(thresholds, default=float("-inf"), key=_nan_last), num_nan, of_groups)
        for i in over:
            wanted[groups[i]] -= caps[i]
            groups[i] = len(wanted)
            wanted.append(caps[i])


def _nan_last(threshold: float) -> tuple[bool, float]:
    return (threshold != threshold, threshold)


def _check_sequences(**given: Any) -> None:
    for name, tensors in given.items():
        how = "give a list of tensors, one per parameter"
        if isinstance(tensors, Tensor):
            raise TypeError(f"{name} is one tensor of shape {tuple(tensors.shape)}; {how}")
        if not isinstance(tensors, Sequence):
            values = f", as list({name}.values())" if isinstance(tensors, Mapping) else ""
            raise TypeError(f"{name} is a {type(tensors).__name__}; {how}{values}")
        for i, tensor in enumerate(tensors):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}[{i}] is a {type(tensor).__name__}; {how}")


def _check_tensors(scores: Sequence[Tensor], masks: Sequence[Tensor]) -> None:
    if len(scores) != len(masks):
        raise ValueError(f"scores has {len(scores)} tensors but masks has {len(masks)}; give one mask per tensor")
    for i, (score, mask) in enumerate(zip(scores, masks, strict=True)):
        if score.shape != mask.shape:
            raise ValueError(f"scores[{i}] has shape {tuple(score.shape)}, masks[{i}] {tuple(mask.shape)}")
        if mask.dtype != torch.bool:
            raise ValueError(f"masks[{i}] has dtype {mask.dtype}, expected torch.bool")
        if score.dtype not in SCORE_DTYPES:
            raise ValueError(f"scores[{i}] has dtype {score.dtype}, expected float32, bfloat16 or float16")
        if score.device.type == "meta":
            raise ValueError(f"scores[{i}] is on meta, where there are no values")
        if score.device != mask.device or score.device != scores[0].device:
            raise ValueError(f"scores[{i}] and masks[{i}] must all lie on one device")


def _check_groups(
    scores: Sequence[Tensor], groups: Sequence[int] | None, group_of: list[int], counts: list[int]
) -> None:
    if groups is None and len(counts) != 1:
        raise ValueError(f"num_pruned has {len(counts)} numbers without groups; give one number, or groups as well")
    if len(group_of) != len(scores):
        raise ValueError(f"groups has {len(group_of)} numbers for {len(scores)} tensors; give one per tensor")
    for i, g in enumerate(group_of):
        if not 0 <= g < len(counts):
            raise ValueError(f"groups[{i}] is {g}, expected 0 to {len(counts) - 1}, an index of num_pruned")


@shape_only("count_survivors")
def _count_survivors_shape(masks: list[Tensor]) -> Tensor:
    return torch.empty(len(masks), dtype=torch.int64, device=masks[0].device)


@shape_only("prune_lowest")
def _prune_lowest_shape(
    scores: list[Tensor], masks: list[Tensor], groups: list[int], num_pruned: list[int], magnitude: bool
) -> tuple[Tensor, Tensor, Tensor]:
    torch._check(len(masks) == len(scores), lambda: f"masks has {len(masks)} tensors, scores {len(scores)}")
    num_words = sum((s.numel() + 31) // 32 for s in scores)
    return (
        masks[0].new_empty(num_words, dtype=torch.int32),
        torch.empty(len(num_pruned), dtype=torch.float32, device=scores[0].device),
        torch.empty(len(scores), 2, dtype=torch.int64, device=scores[0].device),
    )
