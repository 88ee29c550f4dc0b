"""Learning distance: how far training moved the surviving weights from where they started."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def learning_distance(
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    mask: Mapping[str, Tensor] | None,
    names: list[str],
) -> dict[str, float]:
    """The distance between the weights `names` of two states, over survivors, in those of four forms that are defined.

    None is without a survivor; the last two are not if all surviving weights are 0 (the angle: in either state).

    Args:
        start, end: name -> weights before and after training, same shapes.
        mask: name -> bool, True where a weight survives; a name without one is dense.
        names: the weights that count (the prunable ones).

    Returns:
        distance: ||m (end - start)||_2;
        distance_rms: the same per square root of the number of survivors;
        distance_relative: the same per ||m start||_2, which normalisation layers leave meaningful;
        distance_angle: 2 arccos(cosine) / pi of the surviving weights, from 0 (same direction) to 2 (opposite).

    Source: distances as in Sakamoto & Sato 2022 (arXiv 2205.07320); the angle as in Maene et al. 2021
    (arXiv 2106.06955), section 4.1.
    """
    squared = dot = start_squared = end_squared = 0.0
    survivors = 0
    for name in names:
        a, b = start[name].detach().double().reshape(-1), end[name].detach().double().reshape(-1)
        if mask is not None and name in mask:
            keep = mask[name].reshape(-1)
            a, b = a[keep], b[keep]
        survivors += a.numel()
        squared += float((b - a).square().sum())
        dot += float(torch.dot(a, b))
        start_squared += float(a.square().sum())
        end_squared += float(b.square().sum())
    if not survivors:
        return {}
    forms = {"distance": math.sqrt(squared), "distance_rms": math.sqrt(squared / survivors)}
    if start_squared:
        forms["distance_relative"] = math.sqrt(squared / start_squared)
    if norms := math.sqrt(start_squared * end_squared):
        forms["distance_angle"] = 2.0 * math.acos(max(-1.0, min(1.0, dot / norms))) / math.pi
    return forms


TOP = 0.2


def top_overlap(start: Tensor, end: Tensor, mask: Tensor | None) -> float | None:
    """The share of a layer's largest surviving weights before training that are among its largest after it.

    The largest are the upper 20 % by magnitude, so chance gives 0.2. None where these are no whole weight (fewer than
    three survivors): the largest of one would always stay the largest.

    Source: R_p of Liu et al. 2021 (arXiv 2102.11068), equation 1.
    """
    before, after = start.detach().abs().reshape(-1), end.detach().abs().reshape(-1)
    if mask is not None:
        keep = mask.reshape(-1)
        before, after = before[keep], after[keep]
    count = round(TOP * before.numel())
    if count == 0:
        return None
    among = torch.zeros_like(before, dtype=torch.bool)
    among[before.topk(count).indices] = True
    return int(among[after.topk(count).indices].sum()) / count
