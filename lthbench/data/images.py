"""A split of a data set on a device, and batches of it: gathered, augmented, normalised."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lthbench.data.augment import Streams, draw_shifts, gather, slice_each
from lthbench.data.spec import Augment


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels, one element a pixel, so that a crop or a flip is one gather.

    Attributes:
        pixels: [N, H, W]; uint8 grey, or int32 whose bytes in memory are R, G, B, 0 (`pack`).
        labels: int64 [N].
        mean, std: per channel, for pixels in [0, 1]; batches are (pixel / 255 - mean) / std.
    """

    pixels: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the pixels lie, and where batches are made."""
        return self.pixels.device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (len(self.mean), self.pixels.shape[1], self.pixels.shape[2])

    def to(self, device: torch.device | str) -> ImageSet:
        """Return these images on `device`."""
        return ImageSet(self.pixels.to(device), self.labels.to(device), self.mean, self.std)

    def subset(self, index: Tensor) -> ImageSet:
        """Return a copy of the images that `index`, int64 [M], names."""
        index = index.to(self.device)
        return ImageSet(self.pixels[index], self.labels[index], self.mean, self.std)

    def batch(self, index: Tensor, augment: Augment | None = None, rng: np.random.Generator | None = None) -> Tensor:
        """Make one batch: float32 [B, C, H, W], normalised; channels-last strides where C > 1.

        Args:
            index: int64 [B], the images; on any device.
            augment: random changes to each image; None leaves the images as they are.
            rng: this step's generator, on the host. It alone decides the draws, so they are the same on every
                device; one call uses it up.

        Raises:
            ValueError: `augment` asks for random changes and there is no `rng`.
        """
        shifts = None
        if augment is not None and augment.active:
            if rng is None:
                raise ValueError(f"augment asks for random changes ({augment}), but rng is None")
            shifts = draw_shifts(len(index), augment, Streams(rng))
        if self.device.type == "cpu":
            rows, pixels = index.cpu().numpy(), self.pixels.numpy()
            chosen = slice_each(pixels, rows, shifts) if shifts else pixels[rows]
            return self._normalise_on_host(chosen)
        index = index.to(self.device)
        return self._normalise(gather(self.pixels, index, shifts) if shifts else self.pixels.index_select(0, index))

    def _normalise_on_host(self, pixels: np.ndarray) -> Tensor:
        """Do what `_normalise` does, on the host."""
        batch, height, width = pixels.shape
        channels = len(self.mean)
        out = np.empty((batch, height, width, channels), np.float32)
        bytes_of = pixels.view(np.uint8).reshape(batch, height, width, -1)
        for channel in range(channels):
            out[..., channel] = bytes_of[..., channel]
        shift, scale = self._constants
        rows = out.reshape(batch * height, width * channels)
        rows -= shift
        rows *= scale
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _normalise(self, pixels: Tensor) -> Tensor:
        """Turn packed pixels [B, H, W] into (pixel / 255 - mean) / std, [B, C, H, W]."""
        batch, height, width = pixels.shape
        channels = len(self.mean)
        out = torch.empty(batch, height, width, channels, device=self.device)
        out.copy_(unpack(pixels))
        shift, scale = (torch.from_numpy(c).to(self.device, non_blocking=True) for c in self._constants)
        # Two roundings, not one fused multiply-add, so that devices agree in every bit.
        out.view(batch * height, width * channels).sub_(shift).mul_(scale)
        return out.permute(0, 3, 1, 2)

    @cached_property
    def _constants(self) -> tuple[np.ndarray, np.ndarray]:
        """What a row of interleaved channels, float32 [W * C], is lessened by and then multiplied with."""
        width = self.pixels.shape[2]
        shift = np.tile(np.array([255 * m for m in self.mean], np.float32), width)
        scale = np.tile(np.array([1 / (255 * s) for s in self.std], np.float32), width)
        return shift, scale


def pack(images: np.ndarray, index: np.ndarray | None = None) -> Tensor:
    """Pack uint8 images, [N, H, W] grey or [N, 3, H, W] colour, into the pixels [M, H, W] of an ImageSet.

    Args:
        index: int64 [M], which images, in this order; None is all of them.
    """
    if images.ndim == 3:
        chosen = images if index is None else images[index]
        return torch.from_numpy(np.require(chosen, requirements=["C", "W"]))
    _, channels, height, width = images.shape
    packed = np.zeros((len(images if index is None else index), height, width, 4), np.uint8)
    # A channel at a time, so that the chosen images are never whole in memory twice.
    for channel in range(channels):
        packed[..., channel] = images[:, channel] if index is None else images[index, channel]
    return torch.from_numpy(packed.view(np.int32)[..., 0])


def unpack(pixels: Tensor) -> Tensor:
    """View pixels [..., H, W] of an ImageSet as uint8 [..., H, W, C], C = 1 or 3."""
    if pixels.dtype == torch.uint8:
        return pixels.unsqueeze(-1)
    return pixels.contiguous().unsqueeze(-1).view(torch.uint8)[..., :3]
