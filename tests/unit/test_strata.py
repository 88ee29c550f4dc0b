"""Subsets and batches of a set whose file holds class after class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lthbench.data.images import ImageSet, pack
from lthbench.data.loading import Splits, split_train
from lthbench.data.spec import DataSpec
from lthbench.data.strata import DIVISION, random_words, stratified_order
from lthbench.models.spec import ModelSpec
from lthbench.tasks import interpolate
from lthbench.tasks.context import Context
from lthbench.tasks.layout import Layout
from lthbench.tasks.network import make_network, set_initial_weights, weights_of
from lthbench.tasks.spec import InterpolateSpec, Weights
from lthbench.training.loop import evaluate
from lthbench.training.probe import estimate_statistics, fit_probe, set_normalisation

CLASSES = 10
SIZES = st.lists(st.integers(1, 40), min_size=2, max_size=12)


@given(SIZES, st.data())
def test_a_first_part_has_its_share_of_every_class_and_is_contained_in_a_larger_one(
    sizes: list[int], data: st.DataObject
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = stratified_order(labels, random_words(len(labels), DIVISION))
    assert sorted(order) == list(range(len(labels)))
    count = data.draw(st.integers(0, len(labels)))
    counts = np.bincount(labels[order[:count]], minlength=len(sizes))
    # All classes are cut at one place, before which each has its share within one image.
    shares = np.array(sizes) / len(labels)
    assert (abs(counts - count * shares) <= 1 + len(sizes) * shares).all()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_the_classes_of_fewer_images_than_classes_are_a_random_choice(count: int) -> None:
    labels = np.repeat(np.arange(CLASSES), 50)
    first = labels[stratified_order(labels, random_words(len(labels), DIVISION))[:count]]
    assert len(set(first)) == count and sorted(first) != list(range(count))


def test_train_images_are_balanced_whatever_validation_takes() -> None:
    labels = np.repeat(np.arange(CLASSES), 50)
    train, validation = split_train(labels, DataSpec(name="fashion-mnist-10k", validation=13, num_train=20))
    assert np.bincount(labels[train]).tolist() == [2] * CLASSES
    assert set(np.bincount(labels[validation])) == {1, 2} and not set(train) & set(validation)


def test_validation_has_the_proportions_of_classes_that_differ_in_size() -> None:
    sizes = [100, 200, 700]
    _, validation = split_train(np.repeat(range(3), sizes), DataSpec(name="fashion-mnist-10k", validation=100))
    assert np.bincount(np.repeat(range(3), sizes)[validation]).tolist() == pytest.approx([10, 20, 70], abs=1)


class Watched(ImageSet):
    """Images that note the labels of the batches made of them."""

    def batch(self, index: Tensor, *args: object) -> Tensor:  # type: ignore[override]
        """As ImageSet."""
        SEEN.append(self.labels[index])
        return super().batch(index, *args)  # type: ignore[arg-type]


SEEN: list[Tensor] = []
CONV = ModelSpec(name="resnet8", width=4)
DATA = DataSpec(name="fashion-mnist-10k", like="cifar10", validation=200)


def sorted_by_class(per_class: int) -> Watched:
    levels = np.random.default_rng(0).integers(0, 256, (per_class * CLASSES, 3, 8, 8), dtype=np.uint8)
    return Watched(pack(levels), torch.arange(CLASSES).repeat_interleave(per_class), (0.5,) * 3, (0.5,) * 3)


def network() -> torch.nn.Module:
    model = make_network(CONV, DATA, torch.device("cpu"))
    set_initial_weights(model, CONV, seed=0)
    return model


def along_a_line(model: torch.nn.Module, images: Watched, **options: object) -> None:
    ends, empty = weights_of(model), images.subset(torch.arange(0))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(interpolate, "load", lambda *_: Splits(images, empty, images.subset(torch.arange(1))))
        patch.setattr(Context, "network", lambda *_: (ends, Layout.of(model, CONV)))
        patch.setattr(
            interpolate, "_training", lambda *_: SimpleNamespace(recipe=SimpleNamespace(engine="torch"), mask=None)
        )
        a, b = (Weights(task=end * 32) for end in "ab")
        spec = InterpolateSpec(model=CONV, data=DATA, a=a, b=b, points=3, **options)  # type: ignore[arg-type]
        interpolate.interpolate(spec, Context(folder=Path(), folder_of=Path))


def probe_by_batches(model: torch.nn.Module, images: Watched) -> None:
    set_normalisation(model, images, "batch")
    fit_probe(model, "fc", images, images)
    evaluate(model, images)


CONSUMERS: dict[str, Callable[[torch.nn.Module, Watched], object]] = {
    "evaluation": evaluate,
    "statistics of a probe": estimate_statistics,
    "a probe under the statistics of batches": probe_by_batches,
    "train error of a line": lambda model, images: along_a_line(model, images, num_train=50),
    "statistics of a line": lambda model, images: along_a_line(
        model, images, statistics="recompute", statistics_images=50, num_train=50
    ),
}


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_every_batch_of_a_set_sorted_by_class_has_all_classes_about_equally(consumer: str) -> None:
    SEEN.clear()
    CONSUMERS[consumer](network(), sorted_by_class(51))
    batches = [torch.bincount(labels, minlength=CLASSES) for labels in SEEN if len(labels) > 1]
    assert batches and all(int(counts.max() - counts.min()) <= 2 for counts in batches)
    assert all(int(counts.sum()) >= 50 for counts in batches), "no batch of a few images"


def test_batches_present_each_image_once_with_its_label_in_sizes_that_differ_by_one() -> None:
    images = sorted_by_class(7)
    found = list(images.batches(23))
    assert sorted(len(labels) for _, labels in found) == [17, 17, 18, 18]
    found.append((images.batch(torch.arange(70)), images.labels))
    *shown, whole = (
        [(image.numpy().tobytes(), int(label)) for image, label in zip(batch, labels, strict=True)]
        for batch, labels in found
    )
    assert sorted(image for batch in shown for image in batch) == sorted(whole)
    assert list(images.subset(torch.arange(0)).batches(23)) == []


@given(st.integers(0, 70), st.integers(0, 70))
def test_a_smaller_sample_is_part_of_a_larger_one(one: int, two: int) -> None:
    images = sorted_by_class(7)
    small, large = (
        set(range(70)) if s.rows is None else set(s.rows.tolist()) for s in map(images.sample, sorted((one, two)))
    )
    assert small <= large and len(small) == min(one, two)
