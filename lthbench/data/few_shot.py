"""Few-shot subsets: the same number of images of each class; smaller subsets are within larger ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def few_shot(labels: Tensor, per_class: int, rng_for: Callable[[int], np.random.Generator]) -> Tensor:
    """Choose `per_class` images of each class: the first of a random order that `rng_for(class)` gives.

    Args:
        labels: int64 [N].
        rng_for: class -> generator; the same generators give nested subsets for growing `per_class`.

    Returns:
        int64 [per_class * number of classes], ascending.

    Raises:
        ValueError: a class has fewer images.
    """
    chosen = []
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().reshape(-1)
        if len(members) < per_class:
            raise ValueError(f"class {label} has {len(members)} train images, per_class asks for {per_class}")
        order = torch.from_numpy(rng_for(label).permutation(len(members))[:per_class])
        chosen.append(members[order.to(members.device)])
    return torch.cat(chosen).sort().values
