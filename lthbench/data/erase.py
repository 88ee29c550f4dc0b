"""Random erasing of a batch (Zhong et al. 2020, 1708.04896)."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from lthbench.data.augmentation_streams import Places
from lthbench.data.to_device import to_device

ATTEMPTS = 10
SHARES, RATIOS = (0.02, 0.33), (0.3, 3.3)


def erase(images: Tensor, probability: float, rng: np.random.Generator, places: Places | None = None) -> Tensor:
    """Set a random rectangle of some images to 0, the mean colour of normalised images, in place.

    Area and aspect are drawn as torchvision's RandomErasing draws them; an image for which no attempt fits stays
    unchanged.

    Args:
        images: float32 [B, C, H, W], normalised.
        probability: of erasing, for each image.
        places: the positions in the batch that these images have; None if they are the whole batch.
    """
    num_images, _, height, width = images.shape
    places = places or Places(num_images)
    chosen = (rng.random(places.size) < probability)[places.own]
    area, aspect, row, column = rng.random((4, places.size, ATTEMPTS))[:, places.own]
    area = height * width * (SHARES[0] + area * (SHARES[1] - SHARES[0]))
    low, high = map(math.log, RATIOS)
    aspect = np.exp(low + aspect * (high - low))
    heights = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    widths = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (heights < height) & (widths < width)
    first = (np.arange(num_images), fits.argmax(1))
    chosen &= fits.any(1)
    box_height, box_width = heights[first], widths[first]
    top = (row[first] * (height - box_height + 1)).astype(np.int64)
    left = (column[first] * (width - box_width + 1)).astype(np.int64)
    in_rows = _between(top, box_height, height)
    in_columns = _between(left, box_width, width)
    erased = in_rows[:, :, None] & in_columns[:, None, :] & chosen[:, None, None]
    return images.masked_fill_(to_device(erased, images.device)[:, None], 0.0)


def _between(start: np.ndarray, length: np.ndarray, side: int) -> np.ndarray:
    """Whether each of `side` places lies in [start, start + length): bool [B, side]."""
    places = np.arange(side)
    return (places >= start[:, None]) & (places < (start + length)[:, None])
