"""`lthbench bench kernels`: each family of kernels against its baselines, beside the machine's limits."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lthbench.bench.optimizer_speed import training_step_row, update_rows
from lthbench.bench.path_speed import linear_path_row
from lthbench.bench.pruning_speed import adversarial_rows, threshold_rows
from lthbench.bench.timing import BenchRow, threads
from lthbench.models.build import build
from lthbench.models.spec import ModelSpec

# model, image shape, images, points, density of both ends
LINES = [
    ("resnet8", (3, 32, 32), 128, 30, 1.0),
    ("resnet20", (3, 32, 32), 128, 30, 1.0),
    ("lenet-300-100", (1, 28, 28), 2000, 30, 1.0),
    ("resnet20", (3, 32, 32), 128, 30, 0.2),
]


def training_step(batch_size: int, rounds: int) -> BenchRow:
    """A training step of LeNet-300-100; 60 images is the batch of Frankle and Carbin 2019 (arXiv 1803.03635)."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch_size, 1, 28, 28), torch.randint(10, (batch_size,))
    model = build(ModelSpec(name="lenet-300-100"), (1, 28, 28), 10)
    return training_step_row(f"LeNet-300-100 training step, batch {batch_size}", model, images, labels, rounds)


def kernel_rows(num_threads: tuple[int, ...], rounds: int) -> Iterator[list[BenchRow]]:
    """The benchmark's tables, one at a time, each with every number of threads."""
    for count in num_threads:
        with threads(count):
            yield [row for network in ("resnet20", "resnet18", "resnet50") for row in update_rows(network, rounds)]
            yield [training_step(batch_size, rounds) for batch_size in (60, 128)]
            yield [row for network in ("resnet18", "resnet50") for row in threshold_rows(network, rounds=rounds)]
            yield adversarial_rows("resnet18", rounds)
            yield [
                linear_path_row(
                    f"{name} line, density {density:g}",
                    build(ModelSpec(name=name), shape, 10),
                    shape,
                    num_images=num_images,
                    num_points=points,
                    density=density,
                    rounds=rounds,
                )
                for name, shape, num_images, points, density in LINES
            ]
