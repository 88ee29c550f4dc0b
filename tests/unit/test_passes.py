"""What a training sees in its passes over the images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lthbench.data.images import ImageSet, pack
from lthbench.data.spec import Augment
from lthbench.training.loop import Trainer
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
