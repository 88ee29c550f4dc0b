"""A split of a data set on a device, and batches of it: cropped, augmented, normalised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from lthbench.data.augmentation_streams import Places, Streams
from lthbench.data.augmentations import apply_augmentation
from lthbench.data.color_jitter import jitter
from lthbench.data.crop_flip import Shifts, draw_shifts, gather, slice_each
from lthbench.data.erase import erase
from lthbench.data.mix import mix
from lthbench.data.resize import Boxes, crop_and_resize, draw_boxes
from lthbench.data.spec import Augment
from lthbench.data.strata import SAMPLE, random_words, stratified_order
from lthbench.data.to_device import to_device

NO_AUGMENT = Augment()


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels, one tensor element per pixel, so that a crop or a flip is a single gather.

    Attributes:
        pixels: [N, H, W]; uint8 grey, or int32 whose bytes in memory are R, G, B, 0 (`pack`). May be a memory-mapped
            file, which stays on the host if the device has too little memory.
        labels: int64 [M]; batches are made on their device.
        mean, std: per channel, for pixels in [0, 1]; batches are (pixel / 255 - mean) / std.
        rows: int64 [M], which of `pixels` these images are; None is all, in order.
        side: (H, W) of a batch, the central part of images that are stored larger; None is as stored.
    """

    pixels: Tensor
    labels: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    rows: Tensor | None = None
    side: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where batches are delivered."""
        return self.labels.device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image of a batch."""
        return (len(self.mean), *self._side)

    @property
    def _side(self) -> tuple[int, int]:
        return self.side or (self.pixels.shape[1], self.pixels.shape[2])

    def to(self, device: torch.device | str) -> ImageSet:
        """Return these images for `device`; their pixels stay on the host if they would fill half its free memory."""
        device = torch.device(device)
        pixels = self.pixels
        if device.type != "cuda" or 2 * pixels.nbytes < torch.cuda.mem_get_info(device)[0]:
            pixels = pixels.to(device)
        rows = self.rows.to(pixels.device) if self.rows is not None else None
        return replace(self, pixels=pixels, labels=self.labels.to(device), rows=rows)

    def subset(self, index: Tensor) -> ImageSet:
        """Return the images that `index`, int64 [K], names; they share the pixels' memory with these."""
        index = index.to(self.pixels.device)
        rows = index if self.rows is None else self.rows[index]
        return replace(self, rows=rows, labels=self.labels[index.to(self.device)])

    @cached_property
    def _order(self) -> np.ndarray:
        """The images in a stratified order, int64 [N], since files may be sorted by class."""
        return stratified_order(self.labels.cpu().numpy(), random_words(len(self), SAMPLE))

    def sample(self, count: int | None) -> ImageSet:
        """Return `count` of the images, stratified by class; all for None, or if there are no more.

        The same ones at every call, and those of a smaller count are among a larger one's.
        """
        if count is None or count >= len(self):
            return self
        return self.subset(torch.from_numpy(np.sort(self._order[:count])))

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once, in batches (images [B, C, H, W], labels [B]) that are each stratified by class.

        There are as few batches of at most `size` images as possible, whose sizes differ by at most one: where batches
        give statistics, for normalisation say, none has only a few images or a few classes.
        """
        for part in np.array_split(self._order, -(-len(self) // size)) if len(self) else ():
            yield self.batch(to_device(part, self.pixels.device)), self.labels[to_device(part, self.device)]

    def batch(self, index: Tensor, augment: Augment | None = None, rng: np.random.Generator | None = None) -> Tensor:
        """Make one batch: float32 [B, C, H, W], normalised; channels-last strides where C > 1.

        Args:
            index: int64 [B], the images; on any device.
            augment: random changes to each image, without those that mix two; None leaves the images as they are.
            rng: this step's generator, on the host, which alone determines the draws, so that they are the same on
                every device; for a single call.

        Raises:
            ValueError: `augment` asks for random changes and there is no `rng`, for colours of grey images, or for
                mixed images, whose labels only `training_batch` can give.
        """
        augment = augment or NO_AUGMENT
        if augment.mixes:
            raise ValueError(f"augment mixes images ({augment!r}), which changes labels too; use training_batch")
        return self._batch(index, augment, _streams(augment, rng))

    def training_batch(
        self,
        index: Tensor,
        num_classes: int,
        augment: Augment,
        rng: np.random.Generator | None,
        places: np.ndarray | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Make one batch as `batch` does, with what the loss compares it to.

        Args:
            places: int64 [K], make only the images at these positions, as they are in the whole batch.

        Returns:
            images float32 [B, C, H, W]; labels int64 [B], or class probabilities float32 [B, num_classes] where
            `augment` mixes images. torch's cross_entropy takes either.
        """
        streams, labels = _streams(augment, rng), self.labels[index.to(self.device)]
        if streams is None or not (augment.mixes or augment.own):
            images = self._batch(index, augment, streams, places)
            return images, labels if places is None else labels[to_device(places, self.device)]
        # Any other image may be mixed into one, and a plugin's augmentation draws for all: all are made.
        images, targets = self._batch(index, augment, streams), labels
        if augment.mixes:
            images, targets = mix(images, labels, num_classes, augment, streams["mix"])
        if places is None:
            return images, targets
        own = to_device(places, self.device)
        return images[own], targets[own]

    def _batch(
        self, index: Tensor, augment: Augment, streams: Streams | None, places: np.ndarray | None = None
    ) -> Tensor:
        part = Places(len(index)) if places is None else Places(len(index), places)
        shifts = draw_shifts(len(index), augment, streams)
        if places is not None:
            index = index[to_device(places, index.device)]
            shifts = Shifts(*(drawn[places] for drawn in shifts))
            if not len(places):
                return torch.empty(0, *self.image_shape, device=self.device)
        if augment.moves_pixels_only or streams is None:
            packed = self._cut(index, shifts, self._side)
            if packed.device.type == "cpu":
                return self._normalise_on_host(packed.numpy())
            return self._normalise(unpack(packed).permute(0, 3, 1, 2))
        return self._augmented(index, augment, shifts, streams, part)

    def _augmented(self, index: Tensor, augment: Augment, shifts: Shifts, streams: Streams, part: Places) -> Tensor:
        """A batch whose augmentation changes values, not only positions, of pixels."""
        in_colour = augment.autoaugment or augment.randaugment or augment.colour_jitter
        if in_colour and len(self.mean) != 3:
            raise ValueError(f"augment changes colours ({augment!r}), but the images have {len(self.mean)} channel")
        if augment.resized_crop:
            stored = (self.pixels.shape[1], self.pixels.shape[2])
            drawn = draw_boxes(part.size, *stored, augment.resized_crop, streams["resized_crop"])
            boxes = Boxes(*(each[part.own] for each in drawn))
            still = Shifts(shifts.top, shifts.left, np.zeros_like(shifts.mirror))
            whole = unpack(self._cut(index, still, stored))
            images = crop_and_resize(whole, boxes, shifts.mirror, self._side)
        else:
            images = unpack(self._cut(index, shifts, self._side)).permute(0, 3, 1, 2).float()
        if augment.autoaugment or augment.randaugment:
            # Imported here because importing torchvision takes longer than a small training step.
            from lthbench.data.autoaugment import autoaugment, randaugment

            levels = images.round().to(torch.uint8)
            if augment.autoaugment:
                levels = autoaugment(levels, augment.autoaugment, streams["policy"], part)
            if augment.randaugment:
                levels = randaugment(levels, *augment.randaugment, streams["policy"], part)
            images = levels.float()
        if augment.colour_jitter:
            images = jitter(images / 255, augment.colour_jitter, streams["colour"], part) * 255
        for name in augment.own:
            images = apply_augmentation(name, images, streams.own(name))
        images = self._normalise(images)
        return erase(images, augment.erase, streams["erase"], part) if augment.erase else images

    def _cut(self, index: Tensor, shifts: Shifts, side: tuple[int, int]) -> Tensor:
        """The packed pixels [B, *side] of a batch, cropped as `shifts` says, on the batches' device."""
        index = index.to(self.pixels.device)
        if self.rows is not None:
            index = self.rows[index]
        still = side == tuple(self.pixels.shape[1:]) and not any(drawn.any() for drawn in shifts)
        if self.pixels.device.type != "cpu":
            return self.pixels[index] if still else gather(self.pixels, index, shifts, side)
        pixels, rows = self.pixels.numpy(), index.numpy()
        cut = torch.from_numpy(pixels[rows] if still else slice_each(pixels, rows, shifts, side))
        return cut if self.device.type == "cpu" else cut.pin_memory().to(self.device, non_blocking=True)

    def _normalise_on_host(self, pixels: np.ndarray) -> Tensor:
        """Do what `_normalise` does, from packed pixels [B, H, W], without parallel regions."""
        batch, height, width = pixels.shape
        channels = len(self.mean)
        out = np.empty((batch, height, width, channels), np.float32)
        bytes_of = pixels.view(np.uint8).reshape(batch, height, width, -1)
        for channel in range(channels):
            out[..., channel] = bytes_of[..., channel]
        # Over a whole row of interleaved channels the constants are contiguous vectors.
        rows = out.reshape(batch * height, width * channels)
        shift, scale = _row_constants(self.mean, self.std, width)
        rows -= shift
        rows *= scale
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def _normalise(self, images: Tensor) -> Tensor:
        """Turn levels 0 to 255, [B, C, H, W], into (level / 255 - mean) / std, channels last."""
        batch, channels, height, width = images.shape
        out = torch.empty(batch, height, width, channels, device=images.device)
        out.copy_(images.permute(0, 2, 3, 1))
        constants = _row_constants(self.mean, self.std, width)
        shift, scale = (to_device(c, images.device) for c in constants)
        # Two roundings, not one fused multiply-add, so that devices agree in every bit.
        out.view(batch * height, width * channels).sub_(shift).mul_(scale)
        return out.permute(0, 3, 1, 2)


@lru_cache(maxsize=32)
def _row_constants(mean: tuple[float, ...], std: tuple[float, ...], width: int) -> tuple[np.ndarray, np.ndarray]:
    """What is subtracted from a row of interleaved levels, and what it is then multiplied by: float32 [W * C] each."""
    shift = np.array([255 * m for m in mean], np.float32)
    scale = np.array([1 / (255 * s) for s in std], np.float32)
    return np.tile(shift, width), np.tile(scale, width)


def _streams(augment: Augment, rng: np.random.Generator | None) -> Streams | None:
    if not augment.active:
        return None
    if rng is None:
        raise ValueError(f"augment asks for random changes ({augment!r}), but rng is None")
    return Streams(rng)


def pack(images: np.ndarray) -> Tensor:
    """Pack uint8 images, [N, H, W] grey or [N, 3, H, W] colour, into the pixels [N, H, W] of an ImageSet."""
    if images.ndim == 3:
        return torch.from_numpy(np.require(images, requirements=["C", "W"]))
    num_images, channels, height, width = images.shape
    packed = np.zeros((num_images, height, width, 4), np.uint8)
    for channel in range(channels):
        packed[..., channel] = images[:, channel]
    return torch.from_numpy(packed.view(np.int32)[..., 0])


def unpack(pixels: Tensor) -> Tensor:
    """View pixels [..., H, W] of an ImageSet as uint8 [..., H, W, C], C = 1 or 3."""
    if pixels.dtype == torch.uint8:
        return pixels.unsqueeze(-1)
    return pixels.contiguous().unsqueeze(-1).view(torch.uint8)[..., :3]
