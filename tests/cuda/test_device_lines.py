"""Lines between networks on a GPU: every model is evaluated, within the memory that there is."""

from __future__ import annotations

import pytest
import torch

from lthbench.bench.throughput import noise_images
from lthbench.data.spec import DataSpec
from lthbench.engine import policy
from lthbench.engine.linear_path import LinearPathResult, evaluate_linear_path
from lthbench.models.spec import ModelSpec
from lthbench.runner.environment import make_deterministic
from lthbench.tasks.network import make_network, set_initial_weights, weights_of

PAIRS = {
    "lenet-300-100": "fashion-mnist",
    "conv-4": "cifar10",
    "resnet8": "fashion-mnist",  # grey: channels last and first at once
    "resnet20": "cifar10",
    "swin-small64": "tinyimagenet",
}


def line(model: str, data: str, device: str, num_images: int, points: int) -> LinearPathResult:
    make_deterministic(1)
    spec = ModelSpec(name=model)
    ends = []
    for seed in range(2):
        network = make_network(spec, DataSpec(name=data), torch.device(device))
        set_initial_weights(network, spec, seed)
        ends.append(weights_of(network))
    images = noise_images(data, num_images, torch.device(device))
    batch = images.batch(torch.arange(num_images)), images.labels
    return evaluate_linear_path(network, *ends, torch.linspace(0, 1, points), [batch])


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("model", PAIRS)
def test_lines_of_every_model_take_the_path_of_the_gpu_within_five_gib(model: str) -> None:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    points = 3 if model == "swin-small64" else 30
    assert line(model, PAIRS[model], "cuda", 1000, points).num_images == 1000
    assert torch.cuda.max_memory_allocated() < 5 << 30


@pytest.mark.fake_cuda("sim")
@pytest.mark.parametrize("bytes_free", [1, 1 << 30])
def test_lines_on_the_device_agree_with_the_cpus_however_images_are_divided(
    bytes_free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "BYTES_CUDA", bytes_free)
    found, expected = (line("resnet8", "cifar10", device, 9, points=3) for device in ("cuda", "cpu"))
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.error, expected.error)
