"""Our training and the usual frameworks' way are the same mathematics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from benchmarks.baseline import UsualTraining
from torch import Tensor

from lthbench.data.images import ImageSet, pack
from lthbench.data.spec import DATASETS, Augment, DataSpec
from lthbench.models.spec import ModelSpec
from lthbench.tasks.layout import Layout
from lthbench.tasks.network import apply_mask, make_network, set_initial_weights, weights_of
from lthbench.training.loop import Trainer
from lthbench.training.recipe import Recipe
from lthbench.training.streams import stream

STEPS, SEED = 12, 3


def images_of(data: str, count: int) -> ImageSet:
    """Random pixels in the shape of a data set."""
    info = DATASETS[data]
    rng = np.random.default_rng(0)
    shape = info.image_shape if info.image_shape[0] > 1 else info.image_shape[1:]
    pixels = pack(rng.integers(0, 256, (count, *shape), np.uint8))
    return ImageSet(pixels, torch.from_numpy(rng.integers(0, 10, count)), info.mean, info.std)


def batches_of(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches that this trainer takes, in NCHW."""
    images, recipe = trainer.images, trainer.recipe
    for step in range(STEPS):
        epoch, position = divmod(step, trainer.steps_per_epoch)
        order = stream(SEED, "order", 0, epoch).permutation(len(images))
        index = torch.from_numpy(order[position * recipe.batch_size :][: recipe.batch_size])
        batch = images.batch(index, recipe.augment, stream(SEED, "augment", 0, step))
        yield batch.contiguous(), images.labels[index]


@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy ball", "nesterov"])
@pytest.mark.parametrize(
    ("model_name", "data", "augment"),
    [("lenet-300-100", "fashion-mnist", Augment()), ("resnet8", "cifar10", Augment(crop=4, flip=True))],
)
def test_the_same_batches_give_the_weights_that_a_mask_multiplied_in_before_each_forward_pass_gives(
    model_name: str, data: str, augment: Augment, nesterov: bool
) -> None:
    images = images_of(data, count=100)
    spec = ModelSpec(name=model_name)
    model = make_network(spec, DataSpec(name=data), images.device)
    set_initial_weights(model, spec, SEED)
    weights = dict(model.named_parameters())
    chance = torch.Generator().manual_seed(0)
    mask = {n: torch.rand(weights[n].shape, generator=chance) < 0.3 for n in Layout.of(model, spec).prunable}
    apply_mask(model, mask)
    optimizer = {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 0.1, "nesterov": nesterov}
    recipe = Recipe.model_validate(
        {"steps": f"{STEPS}it", "batch_size": 32, "optimizer": optimizer, "augment": augment}
    )
    start = weights_of(model)
    ours = Trainer(model, images, recipe, num_classes=10, seed=SEED, mask=mask)
    theirs = UsualTraining(model, list(batches_of(ours)), recipe.optimizer, mask)  # type: ignore[arg-type]

    losses = [(float(loss) * num_images, num_images) for loss, num_images in (theirs.step() for _ in range(STEPS))]
    ours.run()

    by_epoch = [losses[i : i + ours.steps_per_epoch] for i in range(0, STEPS, ours.steps_per_epoch)]
    expected = [sum(loss for loss, _ in epoch) / sum(n for _, n in epoch) for epoch in by_epoch]
    assert ours.progress.epoch_losses == pytest.approx(expected, rel=1e-4)
    apart = moved = 0.0
    for name, weight in theirs.model.named_parameters():
        # Theirs are 0 only after the next multiplication.
        survivors = weight.detach() * theirs.masks.get(name, 1.0)
        apart += float((weights[name].detach() - survivors).square().sum())
        moved += float((weights[name].detach() - start[name]).square().sum())
    assert math.sqrt(apart / moved) < 0.01
