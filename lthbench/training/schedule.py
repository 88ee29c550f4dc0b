"""`Schedule`: the learning rate along a training, as a multiple of the optimizer's (no torch here)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lthbench import registry
from lthbench.training.steps import Steps


class Schedule(BaseModel):
    """The learning rate as a multiple of the optimizer's, at each iteration.

    Attributes:
        name: `constant`; `step` (times gamma at each milestone); `cosine` (from 1 to 0 between warm-up and end); or
            one that a plugin registers.
        milestones: for `step`, the points at which the rate is multiplied by gamma.
        gamma: the factor of each milestone.
        warmup: the rate grows linearly over these first steps; iteration t (from 0) has t / warmup of it, as open_lth
            and pytorch-cifar100 count, so that the very first update moves nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = "constant"
    milestones: tuple[Steps, ...] = ()
    gamma: Annotated[float, Field(gt=0)] = 0.1
    warmup: Steps = Steps()

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in SCHEDULES:
            raise ValueError(registry.unknown_name("schedule", name, SCHEDULES))
        return name

    @model_validator(mode="after")
    def _milestones_belong_to_step(self) -> Schedule:
        if self.milestones and self.name != "step":
            raise ValueError(f"milestones are for the step schedule, but name is {self.name}")
        return self

    def factor(self, iteration: int, total: int, steps_per_epoch: int) -> float:
        """The multiple of the learning rate at `iteration` (0-based) of `total`."""
        warmup = self.warmup.count(steps_per_epoch, total)
        rising = min(1.0, iteration / warmup) if warmup else 1.0
        return rising * SCHEDULES[self.name](self, Place(iteration, warmup, total, steps_per_epoch))

    def fault(self, total: int, steps_per_epoch: int) -> str | None:
        """What is wrong with a plugin's schedule over a training of `total` iterations."""
        if registry.owner("schedule", self.name) is None:
            return None
        for iteration in (0, total // 2, total - 1):
            try:
                factor = self.factor(iteration, total, steps_per_epoch)
            except Exception as error:
                found = f"fails with {type(error).__name__}: {error}"
            else:
                if math.isfinite(factor) and factor >= 0:
                    continue
                found = f"is {factor}"
            told = registry.told("schedule", self.name)
            return f"{told} {found} at iteration {iteration:,} of {total:,}; it must give a finite number of at least 0"
        return None


class Place:
    """Where an iteration lies in a training.

    Attributes:
        iteration: from 0, since initialisation.
        warmup, total: iterations of the warm-up and of the whole training.
        steps_per_epoch: iterations of an epoch.
    """

    def __init__(self, iteration: int, warmup: int, total: int, steps_per_epoch: int) -> None:
        self.iteration, self.warmup, self.total, self.steps_per_epoch = iteration, warmup, total, steps_per_epoch

    @property
    def progress(self) -> float:
        """The share of the training behind the warm-up that is done: 0 at its end, and never quite 1."""
        return max(0, self.iteration - self.warmup) / max(1, self.total - self.warmup)


def _step(schedule: Schedule, place: Place) -> float:
    passed = sum(place.iteration >= m.count(place.steps_per_epoch, place.total) for m in schedule.milestones)
    return schedule.gamma**passed


def _cosine(schedule: Schedule, place: Place) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * place.progress))


SCHEDULES: dict[str, Callable[[Schedule, Place], float]] = {
    "constant": lambda schedule, place: 1.0,
    "step": _step,
    "cosine": _cosine,
}


def register_schedule(name: str) -> Callable[[Callable[[Place], float]], Callable[[Place], float]]:
    """Add a schedule, which a suite names by `schedule: {name: NAME}`; a warm-up is multiplied with it.

    The function returns, for a `Place`, the multiple of the optimizer's rate: finite, at least 0.

    Raises:
        PluginError: the name is taken, or no plugin is being loaded.
    """

    def register(factor: Callable[[Place], float]) -> Callable[[Place], float]:
        registry.add("schedule", SCHEDULES, name, lambda schedule, place: float(factor(place)))
        return factor

    return register
