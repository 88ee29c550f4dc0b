"""Where each pixel of an augmented batch comes from: crop and flip as one table of source positions.

The random numbers are drawn on the host, each kind from a stream of its own, so that they are the same on
every device and switching one kind on or off leaves the others' draws alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lthbench.data.spec import Augment

# The place of a stream in this table is part of what a seed means: append, never reorder.
STREAMS = ("crop", "flip")


class Streams:
    """One independent generator for each kind of augmentation, all derived from a step's generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._key = rng.integers(0, 2**64, 2, dtype=np.uint64)

    def __getitem__(self, kind: str) -> np.random.Generator:
        # Counters of different kinds are 2^192 blocks apart and never meet.
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, 0, STREAMS.index(kind)]))


class Source(NamedTuple):
    """The source of each pixel: `flat` int64 [B, H, W] into one image's plane, `inside` bool [B, H, W].

    Where `inside` is False the pixel lies in the black border and `flat` is meaningless but valid.
    """

    flat: Tensor
    inside: Tensor


def crop_and_flip(
    num_images: int, height: int, width: int, augment: Augment, streams: Streams, device: torch.device
) -> Source | None:
    """Draw a crop and a flip for each image of a batch; None where `augment` asks for neither.

    Equals torchvision's RandomCrop((H, W), padding=crop), then RandomHorizontalFlip, for the same draws.
    """
    if not augment.crop and not augment.flip:
        return None
    # Three integers an image: top and left edge of the crop relative to the image, and whether to mirror.
    draws = np.zeros((3, num_images, 1), np.int64)
    if augment.crop:
        draws[:2] = streams["crop"].integers(-augment.crop, augment.crop, (2, num_images, 1), endpoint=True)
    if augment.flip:
        draws[2] = streams["flip"].integers(0, 2, (num_images, 1))
    top, left, mirror = torch.from_numpy(draws).to(device, non_blocking=True)
    rows = torch.arange(height, device=device) + top
    columns = torch.arange(width, device=device)
    columns = torch.where(mirror.bool(), width - 1 - columns, columns) + left
    flat = (rows.clamp(0, height - 1) * width)[:, :, None] + columns.clamp(0, width - 1)[:, None, :]
    inside_rows = (rows >= 0) & (rows < height)
    inside_columns = (columns >= 0) & (columns < width)
    return Source(flat, inside_rows[:, :, None] & inside_columns[:, None, :])
