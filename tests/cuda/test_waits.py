"""How often a training on a GPU makes the host wait, and how much it launches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lthbench.data.spec import DATASETS, Augment, DataSpec
from lthbench.models.build import prunable
from lthbench.models.spec import ModelSpec
from lthbench.runner.environment import make_deterministic
from lthbench.runner.throughput import noise_images
from lthbench.tasks.network import make_network, set_initial_weights
from lthbench.training.loop import Trainer
from lthbench.training.recipe import Recipe

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
ADAMW = {"name": "adamw", "lr": 1e-3}


def trainer(model: str, data: str, **recipe: Any) -> Trainer:
    """A training of four batches an epoch."""
    make_deterministic(1)
    device, spec = torch.device("cuda"), ModelSpec(name=model)
    network = make_network(spec, DataSpec(name=data), device)
    set_initial_weights(network, spec, 0)
    weights = dict(network.named_parameters())
    names = prunable(network)
    network.train()
    return Trainer(
        network,
        noise_images(data, 32, device),
        Recipe.model_validate({"steps": "10ep", "batch_size": 8, "optimizer": SGD, **recipe}),
        num_classes=DATASETS[data].num_classes,
        seed=0,
        mask={name: torch.ones_like(weights[name], dtype=torch.bool) for name in names},
        tracked=names,
    )


AUGMENTS: dict[str, dict[str, Any]] = {
    "crop and flip": {"crop": 4, "flip": True},
    "erase": {"erase": 1.0},
    "mixup": {"mixup": 0.8, "mix_probability": 1.0},
    "cutmix": {"cutmix": 1.0, "mix_probability": 1.0},
    "jitter": {"colour_jitter": [0.4, 0.4, 0.4, 0.1]},
    "randaugment": {"randaugment": [2, 9]},
    "autoaugment": {"autoaugment": "cifar10"},
    "resized crop": {"resized_crop": [0.08, 1.0]},
}


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_step_makes_the_host_wait_for_nothing(augment: str) -> None:
    import fake_cuda

    training = trainer("conv-2", "cifar10", augment=AUGMENTS[augment])
    training.one_step()
    with fake_cuda.counted() as counts:
        for _ in range(7):  # the beginning of an epoch among them
            training.one_step()
    assert counts.syncs == 0


@pytest.mark.fake_cuda("sim")
@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_batch_is_the_cpus(augment: str) -> None:
    changes, batches = Augment.model_validate(AUGMENTS[augment]), []
    for device in ("cuda", "cpu"):
        images = noise_images("cifar10", 32, torch.device(device))
        index = torch.arange(32, device=device)
        batch = images.training_batch(index, 10, changes, np.random.Generator(np.random.Philox(1)))
        batches.append([part.cpu() for part in batch])
    for on_device, on_cpu in zip(*batches, strict=True):
        torch.testing.assert_close(on_device, on_cpu, rtol=1e-5, atol=1e-5)
