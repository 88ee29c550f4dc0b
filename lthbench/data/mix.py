"""Mixup and CutMix of a batch: each image is mixed with another of the batch, and the labels in the same proportion."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lthbench.data.spec import Augment
from lthbench.data.to_device import to_device


def mix(
    images: Tensor, labels: Tensor, num_classes: int, augment: Augment, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image with a random other one, in one proportion for the whole batch.

    Args:
        images: float32 [B, C, H, W].
        labels: int64 [B].

    Returns:
        images and class probabilities, float32 [B, num_classes].

    Source: Zhang et al. 2018 (1710.09412), Yun et al. 2019 (1905.04899); one of the two per batch, as in timm.
    """
    targets = F.one_hot(labels, num_classes).float()
    is_mixed, is_cut, row, column = rng.random(4)
    partner = to_device(rng.permutation(len(images)), images.device)
    if is_mixed >= augment.mix_probability:
        return images, targets
    cut = augment.cutmix > 0 and (augment.mixup == 0 or is_cut < 0.5)
    alpha = augment.cutmix if cut else augment.mixup
    share = float(rng.beta(alpha, alpha))
    if cut:
        rows, columns = (
            _interval(centre, side, share) for centre, side in zip((row, column), images.shape[2:], strict=True)
        )
        mixed = images.clone(memory_format=torch.preserve_format)
        mixed[:, :, rows, columns] = images[partner][:, :, rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - area / math.prod(images.shape[2:])
    else:
        mixed = images * share + images[partner] * (1 - share)
    return mixed, targets * share + targets[partner] * (1 - share)


def _interval(centre: float, side: int, share: float) -> slice:
    """The box along one axis: sqrt(1 - share) of the side around a random centre, clipped at the border."""
    middle = int(centre * side)
    half = int(0.5 * math.sqrt(1 - share) * side)
    return slice(max(middle - half, 0), min(middle + half, side))
