"""Which GPU work goes to, and what of it decides bits."""

from __future__ import annotations

import pytest
import torch

from lthbench.bench import throughput
from lthbench.bench.timing import interleaved
from lthbench.models.spec import ModelSpec
from lthbench.runner.environment import environment, make_deterministic
from lthbench.training.recipe import Recipe


@pytest.mark.fake_cuda("guard")
def test_measurements_on_the_second_gpu_wait_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    import fake_cuda

    monkeypatch.setattr(throughput, "SECONDS", 0.0001)
    device, model = torch.device("cuda:1"), ModelSpec(name="lenet-300-100")
    recipe = Recipe.model_validate({"steps": "1ep", "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.1}})
    numbers = torch.ones(8, device=device)
    with fake_cuda.named() as names:
        throughput.training_rate(model, "fashion-mnist", recipe, throughput.TrainingBench(device))
        throughput.network_rate(model, "fashion-mnist", device)
        interleaved({"add": lambda: numbers.add_(1)}, 1, device=device)
    waits = {name for name in names if "ynchronize" in name}
    assert waits
    assert {name for name in waits if not name.endswith("device 1")} == set()


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize(
    ("variable", "value"), [("CUBLAS_WORKSPACE_CONFIG", ":16:8"), ("NVIDIA_TF32_OVERRIDE", "1"), ("allow_tf32", True)]
)
def test_what_changes_a_gpus_bits_is_another_environment(
    variable: str, value: str | bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_deterministic(1)
    before = environment(torch.device("cuda"))
    if isinstance(value, str):
        monkeypatch.setenv(variable, value)
    else:
        monkeypatch.setattr(torch.backends.cudnn, variable, value)
    assert environment(torch.device("cuda")) != before
    assert {"driver", "cudnn", "cuda"} <= before.keys()


def test_the_environment_of_a_cpu_says_nothing_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment(torch.device("cpu"))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    assert environment(torch.device("cpu")) == before
