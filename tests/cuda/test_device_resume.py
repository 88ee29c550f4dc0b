"""Trainings resumed on a GPU: what the host reads stays with the host."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lthbench.bench.throughput import noise_images
from lthbench.data.spec import DataSpec
from lthbench.models.build import prunable
from lthbench.models.spec import ModelSpec
from lthbench.runner.environment import make_deterministic
from lthbench.tasks.network import make_network, set_initial_weights
from lthbench.tasks.tensor_files import read_tensors, write_tensors
from lthbench.training.loop import Trainer
from lthbench.training.recipe import Recipe

OPTIMIZERS = {
    "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    "adamw": {"name": "adamw", "lr": 1e-3},
}


def trainer(optimizer: str, device: str) -> Trainer:
    make_deterministic(1)
    model = ModelSpec(name="lenet-300-100")
    network = make_network(model, DataSpec(name="fashion-mnist"), torch.device(device))
    set_initial_weights(network, model, 0)
    weights = dict(network.named_parameters())
    mask = {name: torch.arange(weights[name].numel()).view(weights[name].shape) % 3 > 0 for name in prunable(network)}
    recipe = Recipe.model_validate({"steps": "10ep", "batch_size": 8, "pull": 0.1, "optimizer": OPTIMIZERS[optimizer]})
    network.train()
    images = noise_images("fashion-mnist", 16, torch.device(device))
    anchors = {name: weights[name].detach().clone() for name in mask}
    return Trainer(network, images, recipe, num_classes=10, seed=0, mask=mask, anchors=anchors)


def resumed(optimizer: str, device: str, folder: Path) -> Trainer:
    """A training after two steps, then killed and resumed for two more."""
    first = trainer(optimizer, device)
    for _ in range(2):
        first.one_step()
    write_tensors(folder / "checkpoint", *first.state())
    second = trainer(optimizer, device)
    second.restore(*read_tensors(folder / "checkpoint", device))
    for _ in range(2):
        second.one_step()
    return second


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_reads_no_device_memory_on_the_host(optimizer: str, tmp_path: Path) -> None:
    training = resumed(optimizer, "cuda", tmp_path)
    assert training.progress.step == 4


@pytest.mark.fake_cuda("sim")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_training_has_the_bits_of_one_that_was_not_stopped(optimizer: str, tmp_path: Path) -> None:
    whole = trainer(optimizer, "cuda")
    for _ in range(4):
        whole.one_step()
    expected, found = whole.state()[0], resumed(optimizer, "cuda", tmp_path).state()[0]
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name].cpu(), found[name].cpu())] == []


@pytest.mark.fake_cuda("sim")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_on_the_device_agrees_with_one_on_the_cpu(optimizer: str) -> None:
    trainings = [trainer(optimizer, device) for device in ("cuda", "cpu")]
    for training in trainings:
        for _ in range(3):
            training.one_step()
    for a, b in zip(*(training.model.parameters() for training in trainings), strict=True):
        torch.testing.assert_close(a.detach().cpu(), b.detach(), rtol=1e-4, atol=1e-6)
