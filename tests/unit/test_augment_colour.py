"""Resizing, colours, policies, erasing and mixing on batches agree with torchvision's, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from lthbench.data import autoaugment
from lthbench.data.augmentation_streams import Streams
from lthbench.data.color_jitter import _brighten, _contrast, _saturate, _turn, jitter
from lthbench.data.erase import erase
from lthbench.data.images import ImageSet, pack
from lthbench.data.mix import mix
from lthbench.data.resize import Boxes, crop_and_resize, draw_boxes
from lthbench.data.spec import Augment

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
ALL = Augment(
    resized_crop=(0.2, 1.0), flip=True, randaugment=(2, 9), colour_jitter=(0.4, 0.4, 0.4, 0.1), erase=0.5, mixup=0.2
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def levels(count: int = 16, side: int = 32) -> torch.Tensor:
    """Random smooth colour images, uint8 [count, 3, side, side]."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(coarse, side, mode="bilinear") * 255).to(torch.uint8)


def image_set(count: int = 16, side: int = 32) -> ImageSet:
    return ImageSet(pack(levels(count, side).numpy()), torch.arange(count) % 10, MEAN, STD)


@pytest.mark.parametrize("side", [(32, 32), (20, 28), (48, 64)])
def test_crop_and_resize_equals_torchvisions_antialiased_resized_crop(side: tuple[int, int]) -> None:
    images = levels(8, 40).float()
    boxes = Boxes(*np.array([[0, 0, 40, 40], [3, 5, 20, 17], [10, 0, 7, 40], [39, 39, 1, 1]] * 2).T)
    mirror = np.arange(8) % 2 == 0
    got = crop_and_resize(images.permute(0, 2, 3, 1), boxes, mirror, side)
    for i, (top, left, height, width) in enumerate(zip(*boxes, strict=True)):
        expected = F.resized_crop(images[i], int(top), int(left), int(height), int(width), list(side), antialias=True)
        expected = F.horizontal_flip(expected) if mirror[i] else expected
        torch.testing.assert_close(got[i], expected, rtol=1e-4, atol=2e-3)


def test_boxes_have_the_distribution_of_torchvisions() -> None:
    boxes = draw_boxes(4000, 48, 64, (0.08, 1.0), rng())
    transform, image = v2.RandomResizedCrop(32, (0.08, 1.0)), torch.zeros(3, 48, 64)
    torch.manual_seed(0)
    theirs = [transform.make_params([image]) for _ in range(4000)]
    for ours, key in zip(boxes, ("top", "left", "height", "width"), strict=True):
        values = np.array([t[key] for t in theirs])
        assert abs(ours.mean() - values.mean()) < 5 * np.sqrt((ours.var() + values.var()) / 4000)
        assert abs(ours.std() - values.std()) < 0.1 * values.std()
    assert (boxes.top >= 0).all() and (boxes.top + boxes.height <= 48).all()
    assert (boxes.left >= 0).all() and (boxes.left + boxes.width <= 64).all()


def test_a_box_that_never_fits_is_the_whole_image() -> None:
    boxes = draw_boxes(5, 10, 1000, (1.0, 1.0), rng())
    assert boxes.height.tolist() == [10] * 5 and boxes.width.tolist() == [1000] * 5


@pytest.mark.parametrize(
    ("ours", "theirs", "amounts"),
    [
        (_brighten, F.adjust_brightness, (0.0, 0.6, 1.0, 1.7)),
        (_contrast, F.adjust_contrast, (0.0, 0.6, 1.0, 1.7)),
        (_saturate, F.adjust_saturation, (0.0, 0.6, 1.0, 1.7)),
        (_turn, F.adjust_hue, (-0.5, -0.1, 0.0, 0.3)),
    ],
)
def test_each_colour_change_equals_torchvisions(ours, theirs, amounts) -> None:  # type: ignore[no-untyped-def]
    images = levels(4).float() / 255
    images[:, :, :3] = 0.25  # grey has no hue
    got = ours(images, torch.tensor(amounts)[:, None, None, None])
    for i, amount in enumerate(amounts):
        torch.testing.assert_close(got[i], theirs(images[i], amount), rtol=1e-4, atol=1e-5)


def test_jitter_of_no_strength_changes_nothing_and_of_some_each_image_differently() -> None:
    images = (levels(1).float() / 255).expand(6, -1, -1, -1)
    assert torch.equal(jitter(images, (0, 0, 0, 0), rng()), images)
    changed = jitter(images, (0.4, 0.4, 0.4, 0.1), rng())
    assert changed.min() >= 0 and changed.max() <= 1
    assert len({image.numpy().tobytes() for image in changed}) == 6


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_every_randaugment_operation_equals_torchvisions(magnitude: int) -> None:
    images = levels(2)
    theirs = v2.RandAugment()
    assert list(autoaugment._RAND) == list(theirs._AUGMENTATION_SPACE)
    for name, (magnitudes, signed) in theirs._AUGMENTATION_SPACE.items():
        values = magnitudes(31, 32, 32)
        for coin in (0.1, 0.9):
            expected = float(values[magnitude]) if values is not None else 0.0
            expected = -expected if signed and coin <= 0.5 else expected
            got = autoaugment._apply_each(
                images, [(name, autoaugment._magnitude(name, magnitude, 31, coin <= 0.5, 32, 32))] * 2
            )
            wanted = theirs._apply_image_or_video_transform(
                images, name, expected, interpolation=theirs.interpolation, fill=theirs._fill
            )
            assert torch.equal(got, wanted), name


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "svhn"])
def test_every_autoaugment_operation_equals_torchvisions(name: str) -> None:
    images = levels(2)
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy(name))
    operations = {step for sub in autoaugment._policies(name) for step in sub}
    assert operations == {step for sub in theirs._policies for step in sub}
    for kind, _, bin_ in operations:
        magnitudes, signed = theirs._AUGMENTATION_SPACE[kind]
        values = magnitudes(10, 32, 32)
        expected = float(values[bin_]) if values is not None else 0.0
        expected = -expected if signed else expected
        got = autoaugment._apply_each(images, [(kind, autoaugment._magnitude(kind, bin_ or 0, 10, True, 32, 32))] * 2)
        wanted = theirs._apply_image_or_video_transform(
            images, kind, expected, interpolation=theirs.interpolation, fill=theirs._fill
        )
        assert torch.equal(got, wanted), kind


def test_policies_choose_for_each_image_by_itself() -> None:
    images = levels(1).expand(64, -1, -1, -1)
    for changed in (autoaugment.randaugment(images, 2, 9, rng()), autoaugment.autoaugment(images, "cifar10", rng())):
        assert changed.dtype == torch.uint8 and changed.shape == images.shape
        assert len({image.numpy().tobytes() for image in changed}) > 20


def test_erasing_sets_one_rectangle_of_the_drawn_images_to_the_mean() -> None:
    images = torch.ones(400, 3, 32, 32)
    erased = erase(images.clone(), 0.25, rng())
    hit = (erased == 0).any(3).any(2).any(1)
    assert 60 < int(hit.sum()) < 140
    for image in erased[hit]:
        holes = (image == 0).all(0)
        assert torch.equal(image == 0, holes.expand(3, -1, -1))
        rows, columns = holes.any(1), holes.any(0)
        assert torch.equal(holes, rows[:, None] & columns[None, :])
        assert 0.01 < holes.float().mean() < 0.36
    assert torch.equal(erase(images.clone(), 0.0, rng()), images)


@pytest.mark.parametrize("augment", [Augment(mixup=0.8), Augment(cutmix=1.0), Augment(mixup=0.8, cutmix=1.0)])
def test_mixed_labels_are_the_shares_of_the_pixels(augment: Augment) -> None:
    labels = torch.arange(10)
    images = torch.eye(10)[:, :, None, None].expand(10, 10, 16, 16).contiguous()  # class c is channel c
    for seed in range(20):
        mixed, targets = mix(images, labels, 10, augment, rng(seed))
        torch.testing.assert_close(mixed.mean((2, 3)), targets, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(targets.sum(1), torch.ones(10))


def test_a_share_of_the_batches_is_mixed() -> None:
    images, labels = torch.rand(8, 3, 4, 4), torch.arange(8)
    augment = Augment(mixup=1.0, mix_probability=0.5)
    mixed = sum(not torch.equal(mix(images, labels, 8, augment, rng(i))[0], images) for i in range(200))
    assert 70 < mixed < 130


def test_a_training_batch_has_labels_or_shares_as_the_loss_takes_them() -> None:
    index = torch.tensor([3, 1, 4])
    images, labels = image_set().training_batch(index, 10, Augment(flip=True), rng())
    assert images.shape == (3, 3, 32, 32) and labels.tolist() == [3, 1, 4]
    images, targets = image_set().training_batch(index, 10, ALL, rng())
    assert targets.shape == (3, 10)
    assert torch.isfinite(torch.nn.functional.cross_entropy(images.mean((2, 3))[:, :1].expand(3, 10), targets))
    plain, _ = image_set().training_batch(index, 10, Augment(), None)
    assert torch.equal(plain, image_set().batch(index))


def test_the_generator_alone_decides_an_augmented_batch() -> None:
    index = torch.arange(16)
    torch.manual_seed(1)
    one = image_set().training_batch(index, 10, ALL, rng(3))
    torch.manual_seed(2)
    same = image_set().training_batch(index, 10, ALL, rng(3))
    other = image_set().training_batch(index, 10, ALL, rng(4))
    assert torch.equal(one[0], same[0]) and torch.equal(one[1], same[1])
    assert not torch.equal(one[0], other[0])
    assert one[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("places", [[], [0], [2, 3, 9, 15]])
@pytest.mark.parametrize(
    "augment",
    [
        Augment(),
        Augment(crop=4, flip=True),
        Augment(resized_crop=(0.3, 1.0), flip=True, colour_jitter=(0.4, 0.4, 0.4, 0.1), erase=0.5),
        Augment(crop=2, autoaugment="imagenet", erase=0.5),
        Augment(flip=True, randaugment=(2, 9)),
        ALL,
    ],
    ids=repr,
)
def test_a_part_of_a_batch_has_the_images_of_the_whole_one(augment: Augment, places: list[int]) -> None:
    index = torch.arange(16).flip(0)
    whole, targets = image_set().training_batch(index, 10, augment, rng(3))
    part, own = image_set().training_batch(index, 10, augment, rng(3), np.array(places, np.int64))
    assert torch.allclose(part, whole[places], atol=1e-5) and part.shape == whole[places].shape
    assert torch.equal(own, targets[places])


@pytest.mark.parametrize("others", [{}, {"resized_crop": (0.5, 1.0)}, {"colour_jitter": (0.1, 0.1, 0.0, 0.0)}])
def test_switching_on_other_augmentations_leaves_the_flips_alone(others: dict[str, tuple[float, ...]]) -> None:
    ramp = np.broadcast_to(np.linspace(250, 5, 16).astype(np.uint8), (64, 3, 16, 16))
    lit = ImageSet(pack(ramp), torch.zeros(64, dtype=torch.int64), MEAN, STD)
    batch = lit.batch(torch.arange(64), Augment.model_validate({"flip": True, **others}), rng(1))
    mirrored = Streams(rng(1))["flip"].integers(0, 2, 64).astype(bool)
    assert np.array_equal((batch[:, 0, 8, 0] < batch[:, 0, 8, -1]).numpy(), mirrored)


def test_images_stored_larger_are_cut_to_their_centre() -> None:
    large = levels(4, 40)
    cut = ImageSet(pack(large.numpy()), torch.arange(4), MEAN, STD, side=(32, 32))
    small = ImageSet(pack(large[:, :, 4:36, 4:36].numpy()), torch.arange(4), MEAN, STD)
    assert cut.image_shape == (3, 32, 32)
    assert torch.equal(cut.batch(torch.arange(4)), small.batch(torch.arange(4)))
    shifted = cut.batch(torch.arange(4), Augment(crop=4), rng())
    assert bool((shifted != (0 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]).any())
    assert cut.training_batch(torch.arange(4), 10, ALL, rng())[0].shape == (4, 3, 32, 32)


def test_a_batch_without_labels_is_not_mixed_silently() -> None:
    with pytest.raises(ValueError, match="use training_batch"):
        image_set().batch(torch.arange(4), Augment(mixup=0.2), rng())


def test_colours_of_grey_images_are_refused() -> None:
    grey = ImageSet(torch.zeros(4, 8, 8, dtype=torch.uint8), torch.arange(4), (0.5,), (0.2,))
    with pytest.raises(ValueError, match="changes colours"):
        grey.batch(torch.arange(4), Augment(randaugment=(2, 9)), rng())
    assert grey.batch(torch.arange(4), Augment(resized_crop=(0.5, 1.0), erase=1.0), rng()).shape == (4, 1, 8, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": 4, "resized_crop": [0.1, 1.0]}, "choose one"),
        ({"autoaugment": "cifar10", "randaugment": [2, 9]}, "choose one"),
        ({"resized_crop": [1.0, 0.1]}, "smaller share first"),
        ({"autoaugment": "cifar"}, "cifar10"),
        ({"randaugment": [2, 31]}, "less than or equal to 30"),
        ({"erase": 1.5}, "less than or equal to 1"),
        ({"blur": 1}, "blur"),
    ],
)
def test_a_contradictory_augmentation_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Augment.model_validate(fields)
