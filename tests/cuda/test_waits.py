"""How often a training on a GPU makes the host wait, and how much it launches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lthbench.bench.throughput import noise_images
from lthbench.data.spec import DATASETS, Augment, DataSpec
from lthbench.engine.linear_path import evaluate_linear_path
from lthbench.models.build import prunable
from lthbench.models.spec import ModelSpec
from lthbench.runner.environment import make_deterministic
from lthbench.tasks.network import make_network, set_initial_weights, weights_of
from lthbench.training.distributed import Ranks
from lthbench.training.loop import Trainer, evaluate
from lthbench.training.recipe import Recipe
from lthbench.training.sync_batchnorm import convert_sync_batchnorm, count_batches_on_host

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}


def trainer(model: str, data: str, drop_path: float = 0.0, **recipe: Any) -> Trainer:
    """A training of four batches an epoch, of eager steps."""
    make_deterministic(1)
    device, spec = torch.device("cuda"), ModelSpec(name=model, drop_path=drop_path)
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
        graphs=False,
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


OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": {"name": "adamw", "lr": 1e-3}},
    "bfloat16": {"precision": "bfloat16"},
    "micro batches": {"micro_batch": 3},
    "average": {"ema": 0.9},
    "smoothed labels": {"label_smoothing": 0.1},
}
RECIPES = {**{name: {"augment": augment} for name, augment in AUGMENTS.items()}, **OPTIONS}


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_makes_the_host_wait_for_nothing(recipe: str) -> None:
    import fake_cuda

    training = trainer("conv-2", "cifar10", **RECIPES[recipe])
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


# Model -> launches of a step, with torch 2.14. The optimizer's step is one of them.
LAUNCHES = {
    "lenet-300-100": 51,
    "conv-2": 70,
    "vgg16": 144,
    "resnet20": 203,
    "resnet50": 441,
    "swin-small64": 1058,
}
LAUNCHES_OF_AN_EPOCHS_END = 22
DATA = {"lenet-300-100": "fashion-mnist", "resnet50": "tinyimagenet", "swin-small64": "tinyimagenet"}


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("model", LAUNCHES)
def test_a_step_and_an_epochs_end_launch_and_wait_as_counted(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fake_cuda

    training = trainer(model, DATA.get(model, "cifar10"), augment=AUGMENTS["crop and flip"])
    for _ in range(5):
        training.one_step()
    with fake_cuda.counted() as step:
        training.one_step()
    monkeypatch.setattr(math, "sqrt", abs)  # nothing was computed: what is read may be negative
    with fake_cuda.counted() as end:
        training._finish_epoch()
    assert (step.syncs, end.syncs) == (0, 1)
    assert step.launches <= LAUNCHES[model]
    assert end.launches <= LAUNCHES_OF_AN_EPOCHS_END


# The recipe of Swin (suites/swin-tinyimagenet.yaml), and an average: what its sources do beside the passes.
SWIN: dict[str, Any] = {
    "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup": "1ep"},
    "label_smoothing": 0.1,
    "ema": 0.999,
    "drop_last": True,
}
SWIN_AUGMENT = {"crop": 4, "flip": True, "erase": 0.25, "mixup": 1.0, "cutmix": 1.0, "mix_probability": 0.5}
# Policy -> the most launches of ten steps: the policy's operations differ from step to step.
SWIN_LAUNCHES = {"autoaugment": 1384, "randaugment": 1452}


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize(("policy", "value"), [("autoaugment", "imagenet"), ("randaugment", [2, 9])])
def test_a_step_of_swins_whole_recipe_waits_for_nothing_and_launches_as_counted(policy: str, value: Any) -> None:
    import fake_cuda

    augment = {**SWIN_AUGMENT, policy: value}
    training = trainer("swin-small64", "tinyimagenet", drop_path=0.1, augment=augment, **SWIN)
    training.one_step()
    launches = []
    with fake_cuda.counted() as counts:
        for _ in range(10):
            with fake_cuda.counted() as step:
                training.one_step()
            launches.append(step.launches)
    assert counts.syncs == 0
    assert max(launches) <= SWIN_LAUNCHES[policy], launches


class Alone(Ranks):
    """The ranks of a training that has two, as the first of them sees it, without the other."""

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        return tensor.add_(tensor)

    def all_gather(self, tensor: Tensor) -> Tensor:
        return torch.stack([tensor, tensor])


@pytest.mark.fake_cuda("guard")
def test_normalising_over_several_processes_makes_the_host_wait_for_nothing() -> None:
    import fake_cuda

    network = make_network(ModelSpec(name="resnet20"), DataSpec(name="cifar10"), torch.device("cuda"))
    convert_sync_batchnorm(network, Alone(0, 2))
    count_batches_on_host(network)
    images = torch.zeros(4, 3, 32, 32, device="cuda")
    network(images).sum().backward()
    with fake_cuda.counted() as counts:
        network(images).sum().backward()
    assert counts.syncs == 0


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("statistics", ["interpolate", "recompute"])
def test_a_line_waits_once_for_its_losses_and_once_for_its_errors(statistics: Any) -> None:
    import fake_cuda

    network = make_network(ModelSpec(name="resnet20"), DataSpec(name="cifar10"), torch.device("cuda"))
    ends = weights_of(network), weights_of(network)
    images = noise_images("cifar10", 500, torch.device("cuda"))

    def line() -> None:
        again = images.batches(100) if statistics == "recompute" else None
        evaluate_linear_path(
            network, *ends, [0.0, 0.5, 1.0], images.batches(100), statistics=statistics, statistics_batches=again
        )

    line()
    with fake_cuda.counted() as counts:
        line()
    assert counts.to_host == 2
    assert counts.syncs <= 4  # and for the points, which are sent there


@pytest.mark.fake_cuda("guard")
def test_an_evaluation_waits_for_its_loss_and_its_accuracy() -> None:
    import fake_cuda

    training = trainer("resnet20", "cifar10")
    evaluate(training.model, training.images)
    with fake_cuda.counted() as counts:
        evaluate(training.model, training.images)
    assert counts.syncs == 2
