"""Random-resized crop of a batch: crops of any size, each resized to one size by two matrices."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lthbench.data.to_device import to_device

ATTEMPTS = 10
RATIOS = (3 / 4, 4 / 3)


class Boxes(NamedTuple):
    """Crops of a batch, in pixels of the stored image: int64 [B] each."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray
    width: np.ndarray


def draw_boxes(
    num_images: int, height: int, width: int, shares: tuple[float, float], rng: np.random.Generator
) -> Boxes:
    """Draw a crop for each image as torchvision's RandomResizedCrop.get_params does.

    Area share and log aspect ratio are uniform; the first of ten tries that fits is taken, or else all of the image.
    """
    area, aspect, row, column = rng.random((4, num_images, ATTEMPTS))
    area = height * width * (shares[0] + area * (shares[1] - shares[0]))
    low, high = map(math.log, RATIOS)
    aspect = np.exp(low + aspect * (high - low))
    heights = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    widths = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = (np.arange(num_images), fits.argmax(1))
    fitting = fits.any(1)
    box_height = np.where(fitting, heights[first], height)
    box_width = np.where(fitting, widths[first], width)
    top = (row[first] * (height - box_height + 1)).astype(np.int64)
    left = (column[first] * (width - box_width + 1)).astype(np.int64)
    return Boxes(top, left, box_height, box_width)


def crop_and_resize(images: Tensor, boxes: Boxes, mirror: np.ndarray, side: tuple[int, int]) -> Tensor:
    """Crop each image to its box, resize it to `side` and mirror it where `flip` is set.

    Equals torchvision's resized_crop with antialiased bilinear interpolation and its horizontal_flip.

    Args:
        images: uint8 or float32 [B, H, W, C].
        mirror: bool [B].

    Returns:
        float32 [B, C, *side]. For each channel it is R image S^T, with a matrix R for the rows and S for the columns.
    """
    num_images, height, width, channels = images.shape
    still = np.zeros_like(mirror)
    rows = _matrix(boxes.top, boxes.height, still, height, side[0], images.device)
    columns = _matrix(boxes.left, boxes.width, mirror, width, side[1], images.device)
    levels = torch.empty(images.shape, device=images.device).copy_(images)
    resized = rows @ levels.view(num_images, height, width * channels)
    across = resized.view(num_images, side[0], width, channels).transpose(1, 2)
    resized = columns @ across.reshape(num_images, width, side[0] * channels)
    return resized.view(num_images, side[1], side[0], channels).permute(0, 3, 2, 1)


def _matrix(
    start: np.ndarray, length: np.ndarray, mirror: np.ndarray, stored: int, side: int, device: torch.device
) -> Tensor:
    """The weight of each stored pixel in each new one along one axis: float32 [B, side, stored]; rows sum to 1."""
    start, length = start[:, None, None], length[:, None, None]
    scale = length / side
    place = np.where(mirror[:, None], np.arange(side)[::-1], np.arange(side))[:, :, None]
    centre = start + scale * (place + 0.5)
    # A triangle of two new pixels' width, or two stored ones' where the image is enlarged.
    reach = np.maximum(scale, 1)
    num_taps = min(stored, int(np.ceil(2 * reach.max())) + 1)
    pixel = np.ceil(centre - reach - 0.5).astype(np.int64) + np.arange(num_taps)
    weight = np.maximum(0, 1 - np.abs(pixel + 0.5 - centre) / reach)
    weight *= (pixel >= start) & (pixel < start + length)
    weight /= weight.sum(2, keepdims=True)
    # Positions beyond the image have weight 0; they wrap around, so that no two indices coincide.
    col_indices = to_device(pixel % stored, device)
    matrix = torch.zeros(len(start), side, stored, device=device)
    return matrix.scatter_(2, col_indices, to_device(weight.astype(np.float32), device))
