"""`lthbench bench training`: rates and curves of a suite's arms."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import Call

from lthbench.bench import throughput
from lthbench.bench.throughput import TrainingBench, network_rate, noise_images, training_rate
from lthbench.models.spec import ModelSpec
from lthbench.training.recipe import SGD, Recipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "SECONDS", 0.05)


def test_a_curve_learns_and_the_rate_is_a_share_of_the_matrix_product(tiny_suite: Path, call: Call) -> None:
    code, out, err = call("bench", "training", tiny_suite, "--arm", "early", "--curve", "60", "--json")
    assert code == 0, err
    (row,) = json.loads(out)
    assert 4 <= row["batch"] <= 64 and row["precision"] == "float32", "fewer images where a batch takes long"
    assert row["flops_per_image"] == 3 * 2 * (784 * 30 + 30 * 10 + 10 * 10), (
        "a LeNet of 30 and 10 units, counted by hand"
    )
    assert row["share_of_matmul"] == row["images_per_second"] * row["flops_per_image"] / row["matmul_flops"]
    assert 0 < row["share_of_matmul"] < 1
    curve = row["curve"]
    assert len(curve["losses"]) == 10 and curve["num_held_out"] == 100
    assert abs(curve["losses"][0] - math.log(10)) < 1 and curve["losses"][-1] < curve["losses"][0] - 0.5
    assert curve["accuracy"] > 0.4 > 0.3 > curve["accuracy_before"]


def test_the_same_curve_twice_is_the_same_curve(tiny_suite: Path, call: Call) -> None:
    options = ("--arm", "late", "--curve", "10", "--batch-size", "16", "--json")
    rows = [json.loads(call("bench", "training", tiny_suite, *options)[1])[0] for _ in range(2)]
    assert rows[0]["curve"] == rows[1]["curve"]
    assert rows[0]["curve"]["batch_size"] == 16


def test_a_curve_without_validation_images_is_refused_before_anything_is_timed(
    tiny_suite: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_suite.write_text(tiny_suite.read_text().replace("validation: 100, ", ""))
    monkeypatch.delattr(throughput, "training_rate")
    code, _, err = call("bench", "training", tiny_suite, "--curve", "10")
    assert (code, "tiny: a curve is judged by validation images" in err) == (2, True)


@pytest.mark.parametrize(("model", "data"), [("lenet-300-100", "mnist"), ("resnet8", "cifar10")])
def test_rates_need_no_images_and_a_slow_batch_is_measured_by_a_smaller_one(model: str, data: str) -> None:
    spec = ModelSpec(name=model)
    recipe = Recipe(steps="1ep", batch_size=4096, optimizer=SGD(name="sgd", lr=0.1), pull=1e-3)
    rate = training_rate(spec, data, recipe, TrainingBench(CPU))
    assert rate.batch_size == 4096 and 4 <= rate.measured_batch <= 4096
    lines = network_rate(spec, data, CPU)
    assert min(lines.evaluation, lines.line, rate.images_per_second) > 0


def test_images_of_noise_have_the_form_of_the_data_set() -> None:
    for data, shape in (("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32)), ("imagenet100", (3, 224, 224))):
        images = noise_images(data, 3, CPU)
        assert images.batch(torch.arange(3)).shape == (3, *shape)
    assert noise_images("imagenet100", 2, CPU).pixels.shape[1:] == (256, 256), "as prepared, before a crop"
