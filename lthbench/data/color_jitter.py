"""Colour jitter with its own strengths for each image of a batch, drawn as by torchvision's ColorJitter."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lthbench.data.augmentation_streams import Places
from lthbench.data.to_device import to_device

# ITU-R 601, as Pillow and torchvision turn colour into grey.
_LUMA = (0.2989, 0.587, 0.114)


def jitter(
    images: Tensor,
    strength: tuple[float, float, float, float],
    rng: np.random.Generator,
    places: Places | None = None,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image, in one random order for the batch.

    Args:
        images: float32 [B, 3, H, W] in [0, 1].
        strength: the largest change of each; factors are uniform in [max(0, 1 - s), 1 + s], the hue in [-s, s].
        places: the positions in the batch that these images have; None if they are the whole batch.

    Returns:
        float32 [B, 3, H, W] in [0, 1].
    """
    order = rng.permutation(4)
    places = places or Places(len(images))
    uniform = rng.random((4, places.size))[:, places.own]
    for kind in order:
        if not strength[kind]:
            continue
        low, high = max(0.0, 1 - strength[kind]), 1 + strength[kind]
        if kind == 3:
            low, high = -strength[kind], strength[kind]
        amount = to_device((low + uniform[kind] * (high - low)).astype(np.float32), images.device)
        images = (_brighten, _contrast, _saturate, _turn)[kind](images, amount[:, None, None, None])
    return images


def _brighten(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(images).mean((1, 2, 3), keepdim=True), images, factor).clamp_(0, 1)


def _saturate(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(images), images, factor).clamp_(0, 1)


def _turn(images: Tensor, share: Tensor) -> Tensor:
    """Rotate the hue by a share of the colour circle, via HSV."""
    red, green, blue = images.split(1, 1)
    value, spread = images.amax(1, keepdim=True), images.amax(1, keepdim=True) - images.amin(1, keepdim=True)
    safe = spread.where(spread > 0, torch.ones_like(spread))
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    hue = hue + 6 * share
    # f(n) = value - spread * max(0, min(k, 4 - k, 1)) with k = (n + hue) mod 6, for n = 5, 3, 1.
    offset = to_device((5.0, 3.0, 1.0), images.device)[None, :, None, None]
    k = (offset + hue) % 6
    return value - spread * torch.minimum(k, 4 - k).clamp(0, 1)


def _grey(images: Tensor) -> Tensor:
    """Luma of colour images, [B, 1, H, W]."""
    weights = to_device(_LUMA, images.device)[None, :, None, None]
    return (images * weights).sum(1, keepdim=True)
