"""One rank of the trainings that test_ranks.py compares with one process; arguments: RANK SIZE PORT OUT."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lthbench.data.images import ImageSet, pack
from lthbench.models.build import build, prunable
from lthbench.models.spec import ModelSpec
from lthbench.tasks.network import apply_mask, set_initial_weights
from lthbench.tasks.tensor_files import write_tensors
from lthbench.training.distributed import Ranks
from lthbench.training.forgetting import Tracker
from lthbench.training.loop import Trainer, evaluate
from lthbench.training.recipe import Recipe

SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
TOO_FAST = {"name": "sgd", "lr": 1e38}
MIXED = {"crop": 2, "flip": True, "erase": 0.5, "mixup": 0.8, "cutmix": 1.0}

# name -> model, images, recipe. 21 images in batches of 8 end in a batch of 5, which no number of ranks above 1 and
# below 5 divides; 17 end in one of 1, so that all ranks but one go without an image.
CASES: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = {
    "lenet": ({"name": "lenet-300-100", "width": 10}, 21, {}),
    "lenet, one image left": ({"name": "lenet-300-100", "width": 10}, 17, {}),
    "resnet8": ({"name": "resnet8", "width": 4}, 21, {"augment": MIXED, "label_smoothing": 0.1}),
    "resnet8, one image left": ({"name": "resnet8", "width": 4}, 17, {}),
    "resnet8 in micro batches": ({"name": "resnet8", "width": 4}, 21, {"micro_batch": 3}),
    "resnet8 averaged": ({"name": "resnet8", "width": 4}, 21, {"ema": 0.9, "pull": 1e-3}),
    "swin": (
        {"name": "swin-small64", "width": 12, "drop_path": 0.5},
        17,
        {"optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05}, "micro_batch": 3},
    ),
}


class DoubleImages(ImageSet):
    """Images in float64, in which rounding cannot hide a mistake."""

    def training_batch(self, *args: Any) -> tuple[Tensor, Tensor]:
        """As ImageSet."""
        images, labels = super().training_batch(*args)
        return images.double(), labels.double() if labels.is_floating_point() else labels

    def batch(self, *args: Any, **options: Any) -> Tensor:
        """As ImageSet."""
        return super().batch(*args, **options).double()


def images_of(count: int, side: int, kind: type[ImageSet] = DoubleImages) -> ImageSet:
    """Random colour images of ten classes."""
    rng = np.random.default_rng(0)
    pixels = pack(rng.integers(0, 256, (count, 3, side, side), np.uint8))
    return kind(pixels, torch.from_numpy(rng.integers(0, 10, count)), (0.5,) * 3, (0.5,) * 3)


def mask_of(model: nn.Module) -> dict[str, Tensor]:
    """A mask with a third of the prunable weights pruned."""
    chance = torch.Generator().manual_seed(0)
    weights = dict(model.named_parameters())
    return {name: torch.rand(weights[name].shape, generator=chance) < 2 / 3 for name in prunable(model)}


def trainer_of(name: str, ranks: Ranks = Ranks(), **changes: Any) -> Trainer:  # noqa: B008 (immutable)
    """The training of a case in float64, its recipe changed, with a third of its weights pruned."""
    model_fields, count, recipe = CASES[name]
    spec, side = ModelSpec(**model_fields), 16
    model = build(spec, (3, side, side), 10).to(memory_format=torch.channels_last)
    set_initial_weights(model, spec, seed=0)
    model.double()
    mask = mask_of(model)
    apply_mask(model, mask)
    recipe = {"steps": "3ep", "batch_size": 8, "optimizer": SGD, **recipe, **changes}
    anchors = {name: model.get_parameter(name).detach().clone() for name in mask}
    images = images_of(count, side)
    tracker = Tracker(2, count, lambda model: evaluate(model, images)[1], images.device)
    return Trainer(
        model, images, Recipe.model_validate(recipe), num_classes=10, seed=0, mask=mask,
        anchors=anchors, tracked=list(mask), tracker=tracker, ranks=ranks,
    )  # fmt: skip


def outcome_of(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state at the end, and the loss after every step."""
    losses: list[float] = []
    trainer.run(on_step=lambda t: losses.append(float(t._loss_sum)))
    tensors, note = trainer.state()
    return tensors, note | {"losses": losses}


def main(rank: int, size: int, out: Path) -> None:
    """Make every training and write how it ended."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(out / "store"), size)  # no port that another might have
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    for name in CASES:
        write_tensors(out / f"{name} {rank}.safetensors", *outcome_of(trainer_of(name, Ranks(rank, size))))
    diverging = trainer_of("lenet", Ranks(rank, size), optimizer=TOO_FAST)
    write_tensors(out / f"diverging {rank}.safetensors", {}, vars(diverging.run()))
    dist.barrier()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
