"""The rates that a plan's hours need of this machine, in a few seconds: the costliest are timed, the others follow."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from lthbench.bench.throughput import TrainingBench, network_rate, training_rate
from lthbench.data.spec import num_train_images
from lthbench.runner.environment import device_name
from lthbench.suite.calibration import Calibration, NetworkRate, TrainingRate
from lthbench.suite.model_cost import model_cost
from lthbench.suite.schema import Pair
from lthbench.suite.this_machine import lacks_network, recipes_without_rate
from lthbench.training.recipe import Recipe

SECONDS = 0.1  # of each measurement
LIMIT = 5.0  # seconds, after which nothing more is timed


@dataclass(frozen=True)
class _Need:
    """A rate to find: of a recipe's training, or of evaluation where there is none."""

    pair: Pair
    recipe: Recipe | None

    @property
    def flops(self) -> float:
        """Floating-point operations of an image."""
        return (1 if self.recipe is None else 3) * model_cost(self.pair.model, self.pair.data).forward_flops

    @property
    def of_task(self) -> float:
        """Floating-point operations of one task, by which the costliest is found."""
        images = num_train_images(self.pair.data)
        if self.recipe is None:
            return self.flops * images
        steps = self.recipe.steps.count(self.recipe.steps_per_epoch(images))
        return self.flops * steps * self.recipe.batch_size


def quick_rates(
    pairs: Iterable[Pair], kept: Calibration | None, device: torch.device, threads: int, *, limit: float = LIMIT
) -> Calibration:
    """What `kept` lacks of the rates of some pairs: timed, a tenth of a second each and the costliest first; and, when
    `limit` seconds are over, estimated by the operations per second that the network nearest in size has reached.

    A network that cannot be timed here has no rate.
    """
    needs = sorted(_needs(pairs, kept), key=lambda need: need.of_task, reverse=True)
    begun, late = time.monotonic(), list[_Need]()
    rates: list[TrainingRate | NetworkRate] = []
    reached: list[tuple[float, float]] = []  # operations of an image, and operations per second
    for need in needs:
        if reached and time.monotonic() - begun >= limit:
            late.append(need)
            continue
        try:
            rates.append(_timed(need, device))
        except (RuntimeError, MemoryError):  # too large for this machine
            continue
        reached.append((need.flops, need.flops * _images_per_second(rates[-1])))
    rates += [_estimated(need, reached) for need in late if reached]
    return Calibration(
        device=device_name(device),
        kind="cuda" if device.type == "cuda" else "cpu",
        torch=torch.__version__,
        threads=threads,
        matmul={},
        trainings=tuple(rate for rate in rates if isinstance(rate, TrainingRate)),
        networks=tuple(rate for rate in rates if isinstance(rate, NetworkRate)),
    )


def _needs(pairs: Iterable[Pair], kept: Calibration | None) -> Iterator[_Need]:
    """Each once: other pairs may train the same network."""
    seen: list[tuple[object, ...]] = []
    for pair in pairs:
        shape = (pair.model, pair.data.info.image_shape, pair.data.info.num_classes)
        if lacks_network(kept, pair) and shape not in seen:
            seen.append(shape)
            yield _Need(pair, None)
        for recipe in recipes_without_rate(kept, pair):
            how = (*shape, recipe.precision, recipe.batch_size, recipe.augment, recipe.engine)
            if how not in seen:
                seen.append(how)
                yield _Need(pair, recipe)


def _timed(need: _Need, device: torch.device) -> TrainingRate | NetworkRate:
    model, data = need.pair.model, need.pair.data.form
    if need.recipe is None:
        return network_rate(model, data, device, SECONDS)
    return training_rate(model, data, need.recipe, TrainingBench(device), SECONDS)


def _estimated(need: _Need, reached: list[tuple[float, float]]) -> TrainingRate | NetworkRate:
    nearest = min(reached, key=lambda one: abs(math.log(one[0] / need.flops)))[1] / need.flops
    common = {"model": need.pair.model, "data": need.pair.data.form, "estimated": True}
    if need.recipe is None:
        return NetworkRate(**common, evaluation=nearest, line=nearest)
    recipe = need.recipe
    return TrainingRate(
        **common,
        precision=recipe.precision,
        batch_size=recipe.batch_size,
        augment=recipe.augment,
        engine=recipe.engine,
        images_per_second=nearest,
        measured_batch=recipe.batch_size,
    )


def _images_per_second(rate: TrainingRate | NetworkRate) -> float:
    return rate.images_per_second if isinstance(rate, TrainingRate) else rate.evaluation
