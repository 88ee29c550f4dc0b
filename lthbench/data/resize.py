"""Random-resized crop of a batch: crops of any size, each brought to one size by two small matrices."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

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
    """Crop each image to its box, resize it to `side` and mirror it where asked.

    Equals torchvision's resized_crop with antialiased bilinear interpolation and its horizontal_flip.

    Args:
        images: float32 [B, C, H, W].
        mirror: bool [B].

    Returns:
        float32 [B, C, *side]. The result is images -> A images B^T with a matrix A for the rows and B for the columns.
    """
    device = images.device
    rows = _weights(boxes.top, boxes.height, images.shape[2], side[0]).to(device, non_blocking=True)
    columns = _weights(boxes.left, boxes.width, images.shape[3], side[1])
    columns = torch.where(torch.from_numpy(mirror)[:, None, None], columns.flip(1), columns)
    return rows[:, None] @ images @ columns.to(device, non_blocking=True).transpose(1, 2)[:, None]


def _weights(start: np.ndarray, length: np.ndarray, stored: int, side: int) -> Tensor:
    """The share of each stored pixel in each new one along one axis: float32 [B, side, stored], rows sum to 1."""
    scale = (length / side)[:, None, None]
    centre = start[:, None, None] + scale * (np.arange(side) + 0.5)[:, None]
    pixel = np.arange(stored)
    # A triangle of two new pixels' width, or two stored ones' where the image is enlarged.
    weight = np.maximum(0, 1 - np.abs(pixel + 0.5 - centre) / np.maximum(scale, 1))
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    weight *= inside[:, None, :]
    weight /= weight.sum(2, keepdims=True)
    return torch.from_numpy(weight.astype(np.float32))
