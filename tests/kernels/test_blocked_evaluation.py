"""Networks trained by the blocked engine are evaluated on its graph: the logits of the layers, within rounding."""

from __future__ import annotations

import copy

import pytest
import torch
from devices import needs_kernels
from test_blocked_training import network
from torch import nn

from lthbench.bench.throughput import noise_images
from lthbench.engine.blocked_evaluation import blocked_evaluation
from lthbench.training.loop import evaluate


@needs_kernels
@pytest.mark.parametrize("density", [1.0, 0.2, 0.02])
@pytest.mark.parametrize("name, width", [("resnet8", None), ("resnet20", 8)])
def test_logits_are_those_of_the_masked_network_in_evaluation_mode(
    name: str, width: int | None, density: float
) -> None:
    model, mask = network(name, density, width)
    images = noise_images("cifar10", 40, torch.device("cpu"))
    x = images.batch(torch.arange(40))
    model(x)  # moves the running statistics
    exact = copy.deepcopy(model).double().eval()
    judged = blocked_evaluation(model, mask)
    assert judged is not model and model.training
    with torch.inference_mode():
        right, usual = exact(x.double()), copy.deepcopy(model).eval()(x)
        error, usual_error = ((t.double() - right).abs().max() for t in (judged(x), usual))
    assert error <= 4 * usual_error + 1e-5
    (loss, accuracy), (its_loss, its_accuracy) = evaluate(judged, images), evaluate(model, images)
    assert loss == pytest.approx(its_loss, rel=1e-4) and accuracy == its_accuracy


def test_a_network_without_convolutions_in_blocks_is_evaluated_as_it_is() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert blocked_evaluation(model, {}) is model
