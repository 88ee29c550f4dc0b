"""Training in bfloat16: the forward and backward pass alone, with the accuracy of float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lthbench.data.loading import load
from lthbench.data.spec import DataSpec
from lthbench.models.spec import ModelSpec
from lthbench.tasks.network import make_network, set_initial_weights
from lthbench.training.loop import Trainer, evaluate
from lthbench.training.recipe import Recipe


# Convolutions in bfloat16 are slow on processors without instructions for it: the small network sees few images.
@pytest.mark.parametrize(
    ("model_fields", "num_train", "at_least"),
    [({"name": "lenet-300-100", "width": 100}, 4000, 0.7), ({"name": "resnet8", "width": 2}, 1000, 0.25)],
    ids=["lenet", "resnet"],
)
def test_a_training_in_bfloat16_keeps_float32_weights_and_comes_as_far_as_one_in_float32(
    model_fields: dict[str, Any], num_train: int, at_least: float
) -> None:
    data, spec = DataSpec(name="fashion-mnist-10k", num_train=num_train), ModelSpec(**model_fields)
    splits = load(data)
    loss, accuracy = {}, {}
    for precision in ("float32", "bfloat16"):
        model = make_network(spec, data, torch.device("cpu"))
        set_initial_weights(model, spec, seed=0)
        optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
        recipe = Recipe.model_validate(
            {
                "steps": "4ep",
                "batch_size": 64,
                "optimizer": optimizer,
                "precision": precision,
                "schedule": {"name": "cosine"},
            }
        )
        trainer = Trainer(model, splits.train, recipe, num_classes=10, seed=0)
        trainer.run()
        assert all(p.dtype == torch.float32 for p in model.parameters())
        loss[precision], accuracy[precision] = evaluate(model, splits.test)
    assert accuracy["float32"] > at_least
    assert loss["bfloat16"] != loss["float32"], "it is another computation"
    assert abs(accuracy["bfloat16"] - accuracy["float32"]) < 0.05
