"""Devices for which a plan's hours are given: calibrated ones, and named ones with published peak rates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from lthbench.options import OptionError
from lthbench.suite.calibration import Calibration, NetworkRate, Precision, TrainingRate
from lthbench.suite.model_cost import model_cost
from lthbench.suite.plan import Plan
from lthbench.suite.work import Work
from lthbench.tasks.spec import InterpolateSpec, MaskSpec, TrainSpec

Spec = TrainSpec | MaskSpec | InterpolateSpec
Unit = Literal["gpuh", "cpuh"]

# The share of its peak that a GPU is assumed to reach, and the assumed time of launching one operator.
UTILISATION = 0.4
LAUNCH_SECONDS = 1e-5


class Device(Protocol):
    """One device, and how long a task would take on it."""

    @property
    def label(self) -> str: ...

    @property
    def source(self) -> str:
        """The source of its numbers: a measurement, or a calculation and its assumptions."""

    @property
    def is_measured(self) -> bool: ...

    @property
    def unit(self) -> Unit:
        """What its hours are called in a budget."""

    @property
    def units(self) -> int:
        """Units per hour of this device: a processor's hour counts once per thread."""

    def seconds(self, spec: Spec, work: Work) -> float | None:
        """How long a task takes, without starting it, reading and writing; None where no rate is known."""


@dataclass(frozen=True)
class Measured:
    """A calibrated device."""

    calibration: Calibration
    _trainings: dict[Any, TrainingRate | None] = field(default_factory=dict, compare=False, repr=False)
    _networks: dict[Any, NetworkRate | None] = field(default_factory=dict, compare=False, repr=False)

    is_measured = True

    @property
    def label(self) -> str:
        return self.calibration.label

    @property
    def source(self) -> str:
        return f"measured with torch {self.calibration.torch}"

    @property
    def unit(self) -> Unit:
        return "gpuh" if self.calibration.kind == "cuda" else "cpuh"

    @property
    def units(self) -> int:
        return 1 if self.calibration.kind == "cuda" else self.calibration.threads

    def seconds(self, spec: Spec, work: Work) -> float | None:
        if isinstance(spec, MaskSpec):
            return 0.0
        data = spec.data.form
        where = (spec.model, data)
        if where not in self._networks:
            self._networks[where] = self.calibration.network(*where)
        if (network := self._networks[where]) is None:
            return None
        seconds = work.evaluated / network.evaluation + work.path_images / network.line
        if isinstance(spec, TrainSpec) and work.trained:
            recipe = spec.recipe
            how = (*where, recipe.precision, recipe.batch_size, recipe.augment, recipe.engine)
            if how not in self._trainings:
                self._trainings[how] = self.calibration.training(*where, recipe)
            if (rate := self._trainings[how]) is None:
                return None
            seconds += work.trained / rate.images_per_second
        return seconds


@dataclass(frozen=True)
class Named:
    """A GPU by its published peak rates, in floating-point operations per second; never measured here.

    Attributes:
        float32: without tensor cores, as float32 recipes are computed exactly.
        bfloat16: of the tensor cores without sparsity, accumulated in float32.
    """

    label: str
    float32: float
    bfloat16: float
    published: str

    is_measured = False
    unit: Unit = "gpuh"
    units = 1

    @property
    def source(self) -> str:
        peak = f"{self.float32 / 1e12:g} (float32) and {self.bfloat16 / 1e12:g} (bfloat16) TFLOP/s: {self.published}"
        assumed = f"{UTILISATION:.0%} of its peak, at least {LAUNCH_SECONDS * 1e6:g} µs an operator"
        return f"calculated, not measured, from counted FLOPs; assumed: {assumed}; peak {peak}"

    def seconds(self, spec: Spec, work: Work) -> float | None:
        if isinstance(spec, MaskSpec):
            return 0.0
        cost = model_cost(spec.model, spec.data)
        precision: Precision = spec.recipe.precision if isinstance(spec, TrainSpec) else "float32"
        peak = {"float32": self.float32, "bfloat16": self.bfloat16}
        training = 3 * cost.forward_flops * work.trained / (UTILISATION * peak[precision])
        evaluation = cost.forward_flops * (work.evaluated + work.path_images) / (UTILISATION * self.float32)
        # A backward pass starts about two operators for each of the forward pass.
        return max(training, 3 * cost.operators * work.steps * LAUNCH_SECONDS) + evaluation


NAMED = (
    Named("H100 SXM", 66.9e12, 989.4e12, "NVIDIA H100 architecture white paper, 2022"),
    Named("A100 SXM", 19.5e12, 312e12, "NVIDIA A100 data sheet, 2021"),
    Named("RTX 4090", 82.6e12, 165.2e12, "NVIDIA Ada architecture white paper, 2022"),
)


def devices_of(measured: Iterable[Calibration]) -> list[Device]:
    """Those that were measured, then the named ones."""
    return [*map(Measured, measured), *NAMED]


def choose_device(devices: Sequence[Device], unit: Unit, name: str | None) -> Device:
    """The device of a budget: the first whose name has `name` in it, or the first that was measured.

    Raises:
        OptionError: there is none.
    """
    of_unit = [d for d in devices if d.unit == unit]
    labels = ", ".join(f"'{d.label}'" for d in of_unit) or "none"
    if name is not None:
        for device in of_unit:
            if name.lower() in device.label.lower():
                return device
        raise OptionError(f"--on {name}: no device with hours in {unit} is called so; known: {labels}")
    for device in of_unit:
        if device.is_measured:
            return device
    if unit == "cpuh":
        raise OptionError(
            "no processor was measured for this version of torch; run `lthbench plan SUITE --calibrate --device cpu`"
        )
    raise OptionError(
        "no GPU was measured for this version of torch; run `lthbench plan SUITE --calibrate` on one, "
        f"or name one to calculate with: --on NAME of {labels}"
    )


def seconds_on(device: Device, plan: Plan) -> dict[str, float | None]:
    """Key of a task -> how long it takes on a device."""
    return {key: device.seconds(task.spec, plan.work[key]) for key, task in plan.tasks.items()}
