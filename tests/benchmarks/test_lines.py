"""Lines of K networks: ours against one state dict after another, beside the rate of a matrix product."""

from __future__ import annotations

import pytest

from lthbench.bench.path_speed import linear_path_row
from lthbench.bench.timing import table, threads
from lthbench.models.build import build
from lthbench.models.spec import ModelSpec

CIFAR = (3, 32, 32)
# model, image shape, images, points, density of the layers between the first and the last
CASES = [
    ("resnet8", CIFAR, 128, 30, 1.0),
    ("resnet20", CIFAR, 128, 30, 1.0),
    ("conv-2", CIFAR, 128, 10, 1.0),
    ("lenet-300-100", (1, 28, 28), 2000, 30, 1.0),
    ("resnet8", CIFAR, 128, 30, 0.2),
    ("resnet20", CIFAR, 128, 30, 0.2),
    ("resnet20", CIFAR, 128, 30, 0.05),
]


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name, shape, num_images, num_points, density", CASES)
def test_a_line_of_networks(benchmark, capsys, name, shape, num_images, num_points, density, num_threads):
    if not benchmark.enabled:  # only that both give the same losses
        num_images, num_points = 16, 2
    model = build(ModelSpec(name=name), shape, 10)
    work = f"{name}, density {density}, K = {num_points}"
    with threads(num_threads):
        row = benchmark.pedantic(
            lambda: linear_path_row(
                work, model, shape, num_images=num_images, num_points=num_points, density=density,
                rounds=3 if benchmark.enabled else 1,
            ),
            rounds=1,
        )  # fmt: skip
    benchmark.extra_info.update(row._asdict())
    if benchmark.enabled:
        with capsys.disabled():
            print("\n" + table([row]))
