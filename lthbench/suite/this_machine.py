"""What is kept of this machine's rates, and what a suite needs beside; all without torch, which takes seconds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from lthbench.machine import gpu_names, processor_name
from lthbench.suite.calibration import Calibration, NetworkRate, TrainingRate
from lthbench.suite.devices import Measured
from lthbench.suite.plan import Plan, longest_chain
from lthbench.suite.schema import Pair
from lthbench.training.recipe import Recipe


@dataclass(frozen=True)
class TimeHere:
    """How long what is not done yet takes on this machine.

    Attributes:
        workers: those that `run` starts by default.
        seconds: of them together; None where a rate is missing.
        estimated: pairs whose rates are not all timed.
    """

    device: str
    kind: Literal["cpu", "cuda"]
    workers: int
    seconds: float | None
    estimated: tuple[str, ...]


def kept_here(found: Iterable[Calibration], device: str, threads: int, name: str | None = None) -> Calibration | None:
    """The calibration of what `--device` means on this machine, among those that are kept.

    Args:
        name: of the device, where torch has told it. The system knows the processor's without its instruction set,
            and the GPUs' without their order.
    """
    gpus = gpu_names()
    is_gpu = device.startswith("cuda") or (device == "auto" and bool(gpus))

    def is_mine(one: Calibration) -> bool:
        if is_gpu:
            return one.kind == "cuda" and (one.device in gpus if name is None else one.device == name)
        mine = one.device.startswith(f"{processor_name()} (") if name is None else one.device == name
        return one.kind == "cpu" and mine and one.threads == threads

    return next(filter(is_mine, found), None)


def lacks_network(kept: Calibration | None, pair: Pair) -> bool:
    """Whether the evaluation of a pair's network has no rate."""
    return kept is None or kept.network(pair.model, pair.data.form) is None


def recipes_without_rate(kept: Calibration | None, pair: Pair) -> Iterator[Recipe]:
    """The recipes of a pair's arms that have no rate of their own."""
    for recipe in pair.recipes:
        rate = None if kept is None else kept.training(pair.model, pair.data.form, recipe)
        if rate is None or not rate.is_of(recipe):
            yield recipe


def time_here(
    device: Measured, plan: Plan, missing: Iterable[str], seconds: Mapping[str, float | None], pairs: Mapping[str, Pair]
) -> TimeHere:
    """How long the missing tasks of a plan take on this machine.

    Args:
        seconds: key of a task -> how long it takes a worker.
        pairs: of the plan.
    """
    kept = device.calibration
    workers = len(os.sched_getaffinity(0)) if kept.kind == "cpu" else max(1, len(gpu_names()))
    work = {key: seconds[key] for key in missing}
    known = {key: each for key, each in work.items() if each is not None}
    total = max(sum(known.values()) / workers, longest_chain(plan, known)) if len(known) == len(work) else None
    estimated = tuple(name for name, pair in pairs.items() if _is_estimated(kept, pair))
    return TimeHere(device.label, kept.kind, workers, total, estimated)


def _is_estimated(kept: Calibration, pair: Pair) -> bool:
    data = pair.data.form
    rates: list[TrainingRate | NetworkRate | None] = [kept.network(pair.model, data)]
    rates += [kept.training(pair.model, data, recipe) for recipe in pair.recipes]
    return any(rate is not None and rate.estimated for rate in rates)
