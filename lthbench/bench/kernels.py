"""`lthbench bench kernels`: each family of kernels against its baselines, beside the machine's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from lthbench.bench.optimizer_speed import training_step_work, update_works
from lthbench.bench.path_speed import linear_path_work
from lthbench.bench.pruning_speed import hard_inputs_work, threshold_work
from lthbench.bench.timing import BenchRow, Work, threads
from lthbench.models.build import build
from lthbench.models.spec import ModelSpec

# Of each family its works by size, as calls that make them.
FAMILIES: dict[str, dict[str, Callable[[], list[Work]]]] = {
    "masked update": {network: partial(update_works, network) for network in ("resnet20", "resnet18", "resnet50")},
    "training step": {
        f"batch {batch_size}": lambda batch_size=batch_size: [training_step(batch_size)]  # type: ignore[misc]
        for batch_size in (60, 128)
    },
    "threshold": {
        f"{network}, density {density:g}": lambda network=network, density=density: [  # type: ignore[misc]
            threshold_work(network, density)
        ]
        for network, density in (("resnet20", 1.0), ("resnet18", 1.0), ("resnet50", 1.0), ("resnet50", 0.2))
    },
    "hard inputs": {
        network: lambda network=network: [hard_inputs_work(network)]  # type: ignore[misc]
        for network in ("resnet20", "resnet18")
    },
    "linear path": {
        f"{name}, density {density:g}": lambda name=name, density=density, images=images: [  # type: ignore[misc]
            linear_path_work(name, density, num_images=images, num_points=30)
        ]
        for name, density, images in (
            ("resnet8", 1.0, 128), ("resnet20", 1.0, 128), ("lenet-300-100", 1.0, 2000), ("resnet20", 0.2, 128),
            ("resnet20", 0.05, 128),
        )
    },
}  # fmt: skip


def training_step(batch_size: int) -> Work:
    """A training step of LeNet-300-100; 60 images is the batch of Frankle and Carbin 2019 (arXiv 1803.03635)."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch_size, 1, 28, 28), torch.randint(10, (batch_size,))
    model = build(ModelSpec(name="lenet-300-100"), (1, 28, 28), 10)
    return training_step_work(f"training step, LeNet-300-100, batch {batch_size}", model, images, labels)


def kernel_rows(num_threads: tuple[int, ...], rounds: int) -> Iterator[list[BenchRow]]:
    """The benchmark's tables, one at a time, each with every number of threads."""
    for count in num_threads:
        with threads(count):
            for sizes in FAMILIES.values():
                yield [row for make in sizes.values() for work in make() for row in work.rows(rounds)]
