"""Crop and flip, as the index of the stored pixel for each pixel of a batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lthbench.data.augmentation_streams import Streams
from lthbench.data.spec import Augment
from lthbench.data.to_device import to_device


class Shifts(NamedTuple):
    """Where each image of a batch is cropped, and whether it is then mirrored.

    Attributes:
        top, left: int64 [B], offset of the crop from the image's centre in pixels; it may reach into the black padding.
        mirror: bool [B].
    """

    top: np.ndarray
    left: np.ndarray
    mirror: np.ndarray


def draw_shifts(num_images: int, augment: Augment, streams: Streams | None) -> Shifts:
    """Draw a crop and a flip for each image of a batch, as far as `augment` asks for them.

    Equals torchvision's RandomCrop((H, W), padding=crop), then RandomHorizontalFlip, for the same draws.
    """
    corner = np.zeros((2, num_images), np.int64)
    mirror = np.zeros(num_images, bool)
    if streams is not None and augment.crop:
        corner = streams["crop"].integers(-augment.crop, augment.crop, corner.shape, endpoint=True)
    if streams is not None and augment.flip:
        mirror = streams["flip"].integers(0, 2, num_images).astype(bool)
    return Shifts(corner[0], corner[1], mirror)


def gather(pixels: Tensor, index: Tensor, shifts: Shifts, side: tuple[int, int]) -> Tensor:
    """Cut images `index`, int64 [B], out of pixels [N, H, W] to [B, *side]: one gather on their device."""
    height, width = pixels.shape[1:]
    device = pixels.device
    packed = np.stack([*_corners(shifts, (height, width), side), shifts.mirror])[:, :, None]
    top, left, mirror = to_device(packed, device)
    rows = torch.arange(side[0], device=device) + top
    columns = torch.arange(side[1], device=device)
    columns = torch.where(mirror.bool(), side[1] - 1 - columns, columns) + left
    first = index[:, None] * (height * width) + rows.clamp(0, height - 1) * width
    source = first[:, :, None] + columns.clamp(0, width - 1)[:, None, :]
    inside_rows = (rows >= 0) & (rows < height)
    inside_columns = (columns >= 0) & (columns < width)
    gathered = pixels.view(-1).index_select(0, source.view(-1)).view(source.shape)
    return gathered.masked_fill_(~(inside_rows[:, :, None] & inside_columns[:, None, :]), 0)


def slice_each(pixels: np.ndarray, index: np.ndarray, shifts: Shifts, side: tuple[int, int]) -> np.ndarray:
    """Do what `gather` does, on the host: one slice per image.

    On a CPU slices beat a gather, and need no parallel regions, which stall when its cores are busy.
    """
    height, width = pixels.shape[1:]
    top, left = _corners(shifts, (height, width), side)
    # How far the crops reach over the images' edges, and so into black.
    border = int(max(0, -top.min(), -left.min(), top.max() + side[0] - height, left.max() + side[1] - width))
    padded = np.zeros((height + 2 * border, width + 2 * border), pixels.dtype)
    inner = padded[border : border + height, border : border + width]
    tops, lefts, mirrored = (top + border).tolist(), (left + border).tolist(), shifts.mirror.tolist()
    out = np.empty((len(index), *side), pixels.dtype)
    for i, image in enumerate(index.tolist()):
        inner[...] = pixels[image]
        cut = padded[tops[i] : tops[i] + side[0], lefts[i] : lefts[i] + side[1]]
        out[i] = cut[:, ::-1] if mirrored[i] else cut
    return out


def _corners(shifts: Shifts, stored: tuple[int, int], side: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The crops' corners in the stored image, whose centre an unshifted crop has."""
    return shifts.top + (stored[0] - side[0]) // 2, shifts.left + (stored[1] - side[1]) // 2
