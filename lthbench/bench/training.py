"""`lthbench bench training`: how fast an arm trains, and whether a short training of it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from lthbench.bench.throughput import TrainingBench, training_rate
from lthbench.data.loading import load
from lthbench.experiments import Cell
from lthbench.runner.environment import device_name
from lthbench.suite.calibration import Precision
from lthbench.suite.model_cost import model_cost
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.network import make_network, set_initial_weights
from lthbench.training.loop import Trainer, evaluate
from lthbench.training.recipe import Recipe
from lthbench.training.steps import Steps

NUM_POINTS = 10


@dataclass(frozen=True)
class Curve:
    """How a short training went.

    Attributes:
        losses: mean training loss over each of `NUM_POINTS` parts of the steps, in order.
        accuracy_before, accuracy: fraction right of `num_held_out` validation images, before and after.
        num_classes: 1 / num_classes is chance.
    """

    steps: int
    batch_size: int
    precision: str
    losses: tuple[float, ...]
    accuracy_before: float
    accuracy: float
    num_held_out: int
    num_classes: int


@dataclass(frozen=True)
class Throughput:
    """How fast one arm trains here.

    Attributes:
        batch: of the steps that were timed.
        flops_per_image: of forward and backward pass, counted; multiply and add apart.
        matmul_flops: floating-point operations per second of a large matrix product in the same precision.
    """

    pair: str
    arm: str
    device: str
    threads: int
    precision: Precision
    batch: int
    images_per_second: float
    flops_per_image: int
    matmul_flops: float
    curve: Curve | None = None

    @property
    def share_of_matmul(self) -> float:
        """The share of the device's matrix-product rate that training reaches."""
        return self.images_per_second * self.flops_per_image / self.matmul_flops


def arm_throughput(cell: Cell, recipe: Recipe, matmul_flops: float, bench: TrainingBench) -> Throughput:
    """Time training steps of an arm, by its own recipe or a changed one."""
    rate = training_rate(cell.model, cell.data.form, recipe, bench)
    return Throughput(
        pair=cell.pair,
        arm=cell.arm,
        device=device_name(bench.device),
        threads=torch.get_num_threads(),
        precision=recipe.precision,
        batch=rate.measured_batch,
        images_per_second=rate.images_per_second,
        flops_per_image=3 * model_cost(cell.model, cell.data).forward_flops,
        matmul_flops=matmul_flops,
    )


def check_curves(cells: Iterable[Cell], root: Path | None) -> None:
    """Refuse pairs without a possible curve, before anything is timed.

    Raises:
        SuiteError: a data set has no validation split.
        DataError: its images are not there.
    """
    for cell in cells:
        if not cell.data.validation:
            raise SuiteError(f"{cell.pair}: a curve is judged by validation images; give its data a `validation`")
        load(cell.data, root)


def training_curve(
    cell: Cell,
    recipe: Recipe,
    steps: int,
    root: Path | None,
    bench: TrainingBench,
    *,
    held_out: int = 1000,
    report: Callable[[int], None] = lambda done: None,
) -> Curve:
    """Train a network from initialisation for so many steps, by a recipe whose schedule is compressed to them.

    Args:
        held_out: the largest number of validation images to evaluate.
        report: called with the number of steps done.
    """
    splits = load(cell.data, root, bench.device)
    num_images = len(splits.train)
    short = recipe.scaled_to(Steps(iterations=steps), recipe.steps_per_epoch(num_images), num_images)
    model = make_network(cell.model, cell.data, bench.device)
    set_initial_weights(model, cell.model, seed=0)
    num_classes = cell.data.info.num_classes
    trainer = Trainer(model, splits.train, short, num_classes=num_classes, seed=0, graphs=bench.graphs)
    judges = splits.validation.sample(held_out)
    before = evaluate(model, judges)[1]
    model.train()
    losses, loss_sum, num_seen = [], 0.0, 0
    for part in range(1, NUM_POINTS + 1):
        while trainer.progress.step < part * steps // NUM_POINTS:
            trainer.one_step()
            report(trainer.progress.step)
        trainer.state()  # brings the sum of losses from the device into `progress`
        now = trainer.progress
        if now.num_seen > num_seen:
            losses.append((now.loss_sum - loss_sum) / (now.num_seen - num_seen))
        loss_sum, num_seen = now.loss_sum, now.num_seen
    return Curve(
        steps=steps,
        batch_size=trainer.batch_size,
        precision=recipe.precision,
        losses=tuple(losses),
        accuracy_before=before,
        accuracy=evaluate(model, judges)[1],
        num_held_out=len(judges),
        num_classes=num_classes,
    )
