"""What a training sees in its passes over the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lthbench.data.images import ImageSet, pack
from lthbench.data.spec import Augment
from lthbench.models.depth import StochasticDepth
from lthbench.training.batches import Batches
from lthbench.training.distributed import Ranks
from lthbench.training.loop import Trainer, evaluate
from lthbench.training.recipe import Recipe

COUNT, PASSES = 50, 3


class Watched(ImageSet):
    """Images that note the batches made of them."""

    def training_batch(self, index: Tensor, *args: object) -> tuple[Tensor, Tensor]:
        """As ImageSet."""
        batch = super().training_batch(index, *args)  # type: ignore[arg-type]
        SEEN.append((index, batch[0]))
        return batch


SEEN: list[tuple[Tensor, Tensor]] = []


def batches(seed: int, *, drop_last: bool = False) -> list[tuple[Tensor, Tensor]]:
    """The images' numbers and pixels of each batch of three passes with erasing at random."""
    pixels = pack(np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8))
    images = Watched(pixels, torch.arange(COUNT) % 10, (0.5,), (0.5,))
    recipe = Recipe.model_validate(
        {
            "steps": f"{PASSES}ep",
            "batch_size": 16,
            "drop_last": drop_last,
            "optimizer": {"name": "sgd", "lr": 0.1},
            "augment": Augment(crop=2, flip=True, erase=1),
        }
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    SEEN.clear()
    Trainer(model, images, recipe, num_classes=10, seed=seed).run()
    return list(SEEN)


def test_each_pass_presents_each_image_once_in_another_order_and_augmented_anew() -> None:
    seen = batches(seed=0)
    passes = [torch.cat([index for index, _ in seen[i : i + 4]]) for i in range(0, 4 * PASSES, 4)]
    assert [len(index) for index, _ in seen] == PASSES * [16, 16, 16, 2]
    assert all(sorted(order.tolist()) == list(range(COUNT)) for order in passes)
    assert not torch.equal(passes[0], passes[1]) and not torch.equal(passes[1], passes[2])
    looks: dict[int, list[Tensor]] = {}
    for index, images in seen:
        for number, image in zip(index.tolist(), images, strict=True):
            looks.setdefault(number, []).append(image)
    alike = sum(torch.equal(a, b) for first, *rest in looks.values() for a in [first] for b in rest)
    assert {len(images) for images in looks.values()} == {PASSES} and alike < 3


def test_a_last_batch_that_is_dropped_is_of_other_images_in_each_pass() -> None:
    seen, whole = batches(0, drop_last=True), batches(0)
    assert [len(index) for index, _ in seen] == PASSES * [16, 16, 16]
    kept = [whole[4 * epoch + i][0] for epoch in range(PASSES) for i in range(3)]
    assert all(torch.equal(index, order) for (index, _), order in zip(seen, kept, strict=True))
    dropped = [
        set(range(COUNT)) - set(torch.cat([i for i, _ in seen[3 * epoch : 3 * epoch + 3]]).tolist())
        for epoch in range(PASSES)
    ]
    assert all(len(images) == 2 for images in dropped) and dropped[0] != dropped[1]


def test_a_seed_names_order_and_augmentation() -> None:
    first, again, other = batches(0), batches(0), batches(1)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], other[0][0])


def test_stochastic_depth_is_drawn_anew_at_each_step_and_divided_as_the_batch_is() -> None:
    pixels = pack(np.zeros((COUNT, 8, 8), dtype=np.uint8))
    images = ImageSet(pixels, torch.arange(COUNT) % 10, (0.5,), (0.5,))
    model = nn.Sequential(StochasticDepth(0.5), StochasticDepth(0.5))
    fields = {"steps": "2ep", "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.1}}
    whole, parts = (
        Batches(images, Recipe.model_validate(fields | micro), 10, 3, 0, model, Ranks())
        for micro in ({}, {"micro_batch": 12})
    )
    draws = []
    for step in range(3):
        (one,) = whole.at(step)[1]
        draws.append(torch.stack(one.kept))
        divided = parts.at(step)[1]
        assert [len(part.images) for part in divided] == [12, 4]
        for layer, kept in enumerate(one.kept):
            assert torch.equal(torch.cat([part.kept[layer] for part in divided]), kept)
        assert torch.equal(torch.stack(whole.at(step)[1][0].kept), draws[-1]), "a function of the step"
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[1], draws[2])
    assert not torch.equal(draws[0][0], draws[0][1]), "each layer has its own"


def test_an_evaluation_is_of_all_images_and_leaves_the_mode_as_it_was() -> None:
    pixels = pack(np.random.default_rng(0).integers(0, 256, (600, 8, 8), dtype=np.uint8))
    images = ImageSet(pixels, torch.arange(600) % 10, (0.5,), (0.5,))
    model, batches = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)), []
    for training in (True, False):
        model.train(training)
        loss, accuracy = evaluate(model, images, lambda: batches.append(1))
        assert model.training == training
    assert len(batches) == 2 * 3, "of 250 images at most"
    with torch.no_grad():
        logits = model(images.batch(torch.arange(600)))
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, images.labels)), rel=1e-5)
    assert accuracy == float((logits.argmax(1) == images.labels).double().mean())


def plain_trainer(**options: object) -> Trainer:
    """A linear network on images of noise, two passes of four batches."""
    pixels = pack(np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8))
    images = ImageSet(pixels, torch.arange(COUNT) % 10, (0.5,), (0.5,))
    fields = {"steps": "2ep", "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.5}}
    fields["schedule"] = {"name": "step", "milestones": ["3it", "6it"], "gamma": 0.1, "warmup": "2it"}
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return Trainer(model, images, Recipe.model_validate(fields), num_classes=10, seed=0, **options)  # type: ignore


def test_each_step_is_made_with_the_rate_that_the_schedule_gives_it() -> None:
    rates: list[float] = []
    plain_trainer().run(on_step=lambda t: rates.append(t.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([0, 0.25, 0.5, 0.05, 0.05, 0.05, 0.005, 0.005])


def test_a_training_begins_within_its_length_and_ends_where_it_is_told_to_or_with_the_recipe() -> None:
    for begin in (-1, 9):
        with pytest.raises(ValueError, match=f"a training of 8 iterations cannot begin at iteration {begin}"):
            plain_trainer(begin=begin)
    assert plain_trainer(begin=8).run().epoch_losses == []
    assert [plain_trainer(begin=2, stop=stop).run().step for stop in (None, 5, 100)] == [8, 5, 8]


@pytest.mark.parametrize("micro", [None, 12])
def test_two_ranks_divide_each_batch_between_them(micro: int | None) -> None:
    pixels = pack(np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), dtype=np.uint8))
    images = ImageSet(pixels, torch.arange(COUNT) % 10, (0.5,), (0.5,))
    recipe = {"steps": "2ep", "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.1}, "augment": {"crop": 2}}
    recipe |= {"micro_batch": micro} if micro else {}
    model = nn.Sequential(StochasticDepth(0.5))
    alone, *shared = (
        Batches(images, Recipe.model_validate(recipe), 10, 0, 0, model, ranks)
        for ranks in (Ranks(), Ranks(0, 2), Ranks(1, 2))
    )
    index, whole = alone.at(5)
    halves = [batches.at(5) for batches in shared]
    assert all(torch.equal(its_index, index) for its_index, _ in halves)
    for part, parts in zip(whole, zip(*(parts for _, parts in halves), strict=True), strict=True):
        assert torch.equal(torch.cat([half.images for half in parts]), part.images)
        assert torch.equal(torch.cat([half.labels for half in parts]), part.labels)
        assert torch.equal(torch.cat([half.kept[0] for half in parts]), part.kept[0])
        assert [half.places.start for half in parts] == [part.places.start, parts[0].places.stop]
