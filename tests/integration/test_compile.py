"""Training on a compiled model: the same results within rounding, and the same bits when repeated."""

from __future__ import annotations

import shutil

import pytest
import torch

from lthbench.data.loading import load
from lthbench.data.spec import Augment, DataSpec
from lthbench.models.spec import ModelSpec
from lthbench.tasks.network import make_network, set_initial_weights, weights_of
from lthbench.training.loop import Trainer
from lthbench.training.recipe import Recipe

DATA = DataSpec(name="fashion-mnist-10k", num_train=40)
MODEL = ModelSpec(name="resnet8", width=4)


def trainer(compile: bool) -> Trainer:
    """A training of 6 steps, every second one with a smaller batch."""
    images = load(DATA).train
    model = make_network(MODEL, DATA, images.device)
    set_initial_weights(model, MODEL, seed=0)
    optimizer = {"name": "sgd", "lr": 1e-3, "momentum": 0.9}
    recipe = Recipe.model_validate(
        {"steps": "6it", "batch_size": 32, "optimizer": optimizer, "augment": Augment(crop=2, flip=True)}
    )
    return Trainer(model, images, recipe, num_classes=10, seed=0, compile=compile)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile needs a C++ compiler")
def test_a_compiled_training_agrees_with_the_plain_one_and_repeats_and_resumes_bit_for_bit() -> None:
    plain, first, resumed = trainer(False), trainer(True), trainer(True)
    saved: dict[int, tuple[dict[str, torch.Tensor], dict[str, object]]] = {}

    def save(training: Trainer) -> None:
        tensors, note = training.state()
        saved[training.progress.step] = ({n: t.clone() for n, t in tensors.items()}, note)

    start = weights_of(plain.model)
    plain.run()
    first.run(on_step=save)
    resumed.restore(*saved[1])
    resumed.run()

    for name, weight in weights_of(first.model).items():
        assert torch.equal(weight, weights_of(resumed.model)[name]), name
        moved = (weight - start[name]).abs().max()
        assert (weight - weights_of(plain.model)[name]).abs().max() <= 0.02 * moved, name
    assert set(first.state()[0]) == set(plain.state()[0])
