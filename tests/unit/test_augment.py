"""Batched augmentation makes the pixels that torchvision makes, from draws that belong to it alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from lthbench.data.augmentation_streams import Streams
from lthbench.data.crop_flip import draw_shifts, gather, slice_each
from lthbench.data.images import ImageSet, pack, unpack
from lthbench.data.spec import Augment

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def images(channels: int, height: int = 32, width: int = 32, count: int = 40) -> tuple[np.ndarray, ImageSet]:
    """Random images, as the files hold them and as an image set."""
    shape = (count, channels, height, width) if channels > 1 else (count, height, width)
    raw = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return raw, ImageSet(pack(raw), torch.arange(count), MEAN[:channels], STD[:channels])


def normalised(raw: torch.Tensor, channels: int) -> torch.Tensor:
    """torchvision's ToDtype(float32, scale=True) and Normalize."""
    return F.normalize(F.to_dtype(raw, torch.float32, scale=True), MEAN[:channels], STD[:channels])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_plain_batch_equals_torchvisions_normalisation(channels: int) -> None:
    raw, image_set = images(channels)
    index = torch.tensor([3, 0, 39, 3])
    expected = normalised(torch.from_numpy(raw)[index].reshape(4, channels, 32, 32), channels)
    torch.testing.assert_close(image_set.batch(index), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (8, 20)])
@pytest.mark.parametrize("augment", [Augment(crop=4), Augment(flip=True), Augment(crop=9, flip=True)])
def test_crop_and_flip_equal_torchvisions(channels: int, height: int, width: int, augment: Augment) -> None:
    raw, image_set = images(channels, height, width)
    index = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    got = image_set.batch(index, augment, np.random.default_rng(5))

    streams = Streams(np.random.default_rng(5))
    offsets = np.zeros((2, 40), np.int64)
    if augment.crop:
        offsets = streams["crop"].integers(-augment.crop, augment.crop, (2, 40), endpoint=True)
    mirrored = streams["flip"].integers(0, 2, 40) if augment.flip else np.zeros(40)
    expected = []
    for i, image in enumerate(index.tolist()):
        one = torch.from_numpy(raw[image]).reshape(channels, height, width)
        top, left = (int(o) + augment.crop for o in offsets[:, i])
        one = F.crop(F.pad(one, [augment.crop]), top, left, height, width)
        expected.append(normalised(F.horizontal_flip(one) if mirrored[i] else one, channels))
    torch.testing.assert_close(got, torch.stack(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", [Augment(crop=4), Augment(flip=True), Augment(crop=9, flip=True)])
def test_the_devices_gather_and_the_hosts_slices_give_the_same_bits(channels: int, augment: Augment) -> None:
    _, image_set = images(channels, 8, 20)
    index = torch.randint(0, 40, (64,), generator=torch.Generator().manual_seed(0))
    shifts = draw_shifts(64, augment, Streams(np.random.default_rng(2)))
    for side in ((8, 20), (6, 10)):
        on_device = gather(image_set.pixels, index, shifts, side)
        on_host = slice_each(image_set.pixels.numpy(), index.numpy(), shifts, side)
        assert np.array_equal(on_device.numpy(), on_host)
        normalised_on_device = image_set._normalise(unpack(on_device).permute(0, 3, 1, 2))
        assert torch.equal(normalised_on_device, image_set._normalise_on_host(on_host))


def test_every_offset_and_both_mirror_images_occur_about_equally_often() -> None:
    offsets = Streams(np.random.default_rng(0))["crop"].integers(-4, 4, 90_000, endpoint=True)
    counts = np.bincount(offsets + 4)
    assert len(counts) == 9
    assert abs(counts - 10_000).max() < 500  # five standard deviations


def test_the_generator_alone_decides_the_batch() -> None:
    _, image_set = images(3)
    index, augment = torch.arange(40), Augment(crop=4, flip=True)
    torch.manual_seed(1)
    one = image_set.batch(index, augment, np.random.default_rng(7))
    torch.manual_seed(2)
    same = image_set.batch(index, augment, np.random.default_rng(7))
    other = image_set.batch(index, augment, np.random.default_rng(8))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_switching_the_crop_off_leaves_the_flips_alone() -> None:
    raw = np.zeros((200, 3, 4, 4), np.uint8)
    raw[..., 0] = 255  # left column
    image_set = ImageSet(pack(raw), torch.zeros(200), MEAN, STD)
    only_flip = image_set.batch(torch.arange(200), Augment(flip=True), np.random.default_rng(3))
    both = Streams(np.random.default_rng(3))["flip"].integers(0, 2, 200).astype(bool)
    assert np.array_equal((only_flip[:, 0, 0, 3] > 0).numpy(), both)


def test_the_bits_of_a_batch_do_not_depend_on_the_number_of_threads() -> None:
    _, image_set = images(3)
    before = torch.get_num_threads()
    batches = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        batches.append(image_set.batch(torch.arange(40), Augment(crop=4, flip=True), np.random.default_rng(0)))
    torch.set_num_threads(before)
    assert torch.equal(*batches)


def test_colour_batches_are_channels_last_and_grey_ones_contiguous() -> None:
    assert images(3)[1].batch(torch.arange(8)).is_contiguous(memory_format=torch.channels_last)
    assert images(1)[1].batch(torch.arange(8)).is_contiguous()


@pytest.mark.parametrize("channels", [1, 3])
def test_packing_loses_nothing(channels: int) -> None:
    raw, image_set = images(channels)
    unpacked = unpack(image_set.pixels).permute(0, 3, 1, 2).numpy()
    assert np.array_equal(unpacked, raw.reshape(unpacked.shape))


def test_augmentation_without_a_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="rng is None"):
        images(3)[1].batch(torch.arange(2), Augment(flip=True))


def test_a_subset_holds_exactly_the_named_images() -> None:
    _, image_set = images(3)
    subset = image_set.subset(torch.tensor([5, 2]))
    assert subset.labels.tolist() == [5, 2]
    assert torch.equal(subset.batch(torch.tensor([1])), image_set.batch(torch.tensor([2])))
