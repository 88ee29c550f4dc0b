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


class Shifts(NamedTuple):
    """Where each image of a batch is cropped, and whether it is mirrored then.

    Attributes:
        top, left: int64 [B], the crop's corner relative to the image's; below 0 in the black border.
        mirror: bool [B].
    """

    top: np.ndarray
    left: np.ndarray
    mirror: np.ndarray


def draw_shifts(num_images: int, augment: Augment, streams: Streams) -> Shifts | None:
    """Draw a crop and a flip for each image of a batch; None where `augment` asks for neither.

    Equals torchvision's RandomCrop((H, W), padding=crop), then RandomHorizontalFlip, for the same draws.
    """
    if not augment.crop and not augment.flip:
        return None
    corner = np.zeros((2, num_images), np.int64)
    mirror = np.zeros(num_images, bool)
    if augment.crop:
        corner = streams["crop"].integers(-augment.crop, augment.crop, corner.shape, endpoint=True)
    if augment.flip:
        mirror = streams["flip"].integers(0, 2, num_images).astype(bool)
    return Shifts(corner[0], corner[1], mirror)


def gather(pixels: Tensor, index: Tensor, shifts: Shifts) -> Tensor:
    """Crop and flip images `index`, int64 [B], of pixels [N, H, W]: one gather on their device."""
    height, width = pixels.shape[1:]
    device = pixels.device
    packed = torch.from_numpy(np.stack([shifts.top, shifts.left, shifts.mirror])[:, :, None])
    top, left, mirror = packed.to(device, non_blocking=True)
    rows = torch.arange(height, device=device) + top
    columns = torch.arange(width, device=device)
    columns = torch.where(mirror.bool(), width - 1 - columns, columns) + left
    first = index[:, None] * (height * width) + rows.clamp(0, height - 1) * width
    source = first[:, :, None] + columns.clamp(0, width - 1)[:, None, :]
    inside_rows = (rows >= 0) & (rows < height)
    inside_columns = (columns >= 0) & (columns < width)
    gathered = pixels.view(-1).index_select(0, source.view(-1)).view(source.shape)
    return gathered.masked_fill_(~(inside_rows[:, :, None] & inside_columns[:, None, :]), 0)


def slice_each(pixels: np.ndarray, index: np.ndarray, shifts: Shifts) -> np.ndarray:
    """Do what `gather` does, on the host: one slice an image.

    On a CPU slices beat a gather, and need no parallel regions, which stall when its cores are busy.
    """
    height, width = pixels.shape[1:]
    border = int(max(np.abs(shifts.top).max(), np.abs(shifts.left).max(), 0))
    padded = np.zeros((height + 2 * border, width + 2 * border), pixels.dtype)
    inner = padded[border : border + height, border : border + width]
    out = np.empty((len(index), height, width), pixels.dtype)
    top, left = (shifts.top + border).tolist(), (shifts.left + border).tolist()
    for i, image in enumerate(index.tolist()):
        inner[...] = pixels[image]
        crop = padded[top[i] : top[i] + height, left[i] : left[i] + width]
        out[i] = crop[:, ::-1] if shifts.mirror[i] else crop
    return out
