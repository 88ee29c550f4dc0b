"""Exact global pruning: clear the masks of exactly k survivors with the lowest scores.

The rule (every implementation gives the same masks, bit for bit): survivors are ordered by
(score, flat index in parameter order); the first ``num_pruned`` of them are cleared. So ties are
pruned at the lowest flat index first. NaN ranks above +inf and is never pruned before a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Pruned(NamedTuple):
    """New masks, the score of the last pruned weight (-inf when none was), and the NaN scores seen."""

    masks: list[Tensor]
    threshold: float
    num_nan: int


def prune_lowest(
    scores: Sequence[Tensor], masks: Sequence[Tensor], num_pruned: int, *, magnitude: bool = True
) -> Pruned:
    """Clear exactly ``num_pruned`` more mask entries: the survivors with the lowest |score| over all tensors.

    Args:
        scores: one tensor per prunable parameter, any shape; float32, bfloat16 or float16.
        masks: bool tensors of the same shapes; True marks a survivor. They are not changed.
        num_pruned: how many survivors to clear, 0 <= num_pruned <= number of survivors.
        magnitude: order by |score| (magnitude pruning); False orders by the signed score.

    Raises:
        ValueError: lengths, shapes or dtypes disagree, or num_pruned is out of range.

    Source: Frankle et al. 2020 (arXiv 1912.05671), algorithm 2: the lowest magnitudes are pruned globally.
    """
    check_arguments(scores, masks, num_pruned)
    if not scores:
        return Pruned([], float("-inf"), 0)
    flat_mask = torch.cat([m.reshape(-1) for m in masks])
    flat = torch.cat([s.detach().reshape(-1).float() for s in scores])
    survivors = flat_mask.nonzero().reshape(-1)
    values = flat[survivors]
    if magnitude:
        values = values.abs()
    num_nan = int(values.isnan().sum())
    # A stable ascending sort puts NaN last and keeps equal scores in flat order: the rule above, word for word.
    order = torch.argsort(values, stable=True)[:num_pruned]
    flat_mask[survivors[order]] = False
    threshold = float(values[order[-1]]) if num_pruned else float("-inf")
    pieces = flat_mask.split([m.numel() for m in masks])
    new_masks = [piece.reshape(m.shape).clone() for piece, m in zip(pieces, masks, strict=True)]
    return Pruned(new_masks, threshold, num_nan)


def check_arguments(scores: Sequence[Tensor], masks: Sequence[Tensor], num_pruned: int) -> None:
    """Validate the arguments of `prune_lowest`; each message names the argument at fault."""
    if len(scores) != len(masks):
        raise ValueError(f"scores has {len(scores)} tensors but masks has {len(masks)}; give one mask a tensor")
    for i, (score, mask) in enumerate(zip(scores, masks, strict=True)):
        if score.shape != mask.shape:
            raise ValueError(f"scores[{i}] has shape {tuple(score.shape)}, masks[{i}] {tuple(mask.shape)}")
        if mask.dtype != torch.bool:
            raise ValueError(f"masks[{i}] has dtype {mask.dtype}, expected torch.bool")
        if score.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"scores[{i}] has dtype {score.dtype}, expected float32, bfloat16 or float16")
        if score.device != mask.device or score.device != scores[0].device:
            raise ValueError(f"scores[{i}] and masks[{i}] must all lie on one device")
    num_survivors = sum(int(m.sum()) for m in masks)
    if not 0 <= num_pruned <= num_survivors:
        raise ValueError(f"num_pruned is {num_pruned}, expected 0 to the {num_survivors} survivors")
