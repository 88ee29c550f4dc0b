"""`Calibration`: how fast one device was measured to train and evaluate networks, and the file that keeps it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lthbench.data.spec import DATASETS, Augment, spec_of_form
from lthbench.documents import LARGEST_DOCUMENT, DocumentError, parse_document, read_bounded
from lthbench.home import cache_folder
from lthbench.lease import Lease
from lthbench.models.spec import MODELS, ModelSpec
from lthbench.tasks.atomic import write_atomically
from lthbench.training.recipe import Engine, Recipe

Precision = Literal["float32", "bfloat16"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class CalibrationError(Exception):
    """A calibration that cannot be used; the message names the file and the cure."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _OfNetwork(_Frozen):
    """What a rate belongs to: a model on the images of a data set.

    Attributes:
        estimated: whether the rate follows from another network's, by their floating-point operations.
    """

    model: ModelSpec
    data: str
    estimated: bool = False

    @field_validator("data")
    @classmethod
    def _known(cls, name: str) -> str:
        spec_of_form(name)
        return name


class TrainingRate(_OfNetwork):
    """Images a second of training steps: batch, forward, backward, update.

    Attributes:
        batch_size: of the recipe.
        measured_batch: of the steps that were timed; smaller where a whole batch would take too long.
    """

    precision: Precision
    batch_size: Count
    augment: Augment
    engine: Engine = "torch"
    images_per_second: Positive
    measured_batch: Count

    def is_of(self, recipe: Recipe) -> bool:
        """Whether it is the rate of a recipe's training, not only near it."""
        mine = (self.precision, self.batch_size, self.augment, self.engine)
        return mine == (recipe.precision, recipe.batch_size, recipe.augment, recipe.engine)


class NetworkRate(_OfNetwork):
    """Images a second of evaluation, and of a linear path: each image counts once for every network on it."""

    evaluation: Positive
    line: Positive


Rate = TypeVar("Rate", bound=_OfNetwork)


_RATES = ("trainings", "networks")


class Calibration(_Frozen):
    """What was measured of one device.

    Attributes:
        device: its name; a GPU's as the driver gives it.
        kind: whether its hours are those of a GPU or of a processor with `threads` threads.
        matmul: precision -> floating-point operations per second of a large matrix product.
    """

    version: Literal[1] = 1
    device: str
    kind: Literal["cpu", "cuda"]
    torch: str
    threads: Count
    matmul: dict[Precision, Positive]
    trainings: tuple[TrainingRate, ...] = ()
    networks: tuple[NetworkRate, ...] = ()

    @property
    def label(self) -> str:
        """The device's name and threads."""
        return self.device if self.kind == "cuda" else f"{self.device}, {self.threads} thread{'s'[: self.threads > 1]}"

    def training(self, model: ModelSpec, data: str, recipe: Recipe) -> TrainingRate | None:
        """The rate of a training, or the nearest one of the same network and precision; None without one."""
        near = [rate for rate in _of_network(self.trainings, model, data) if rate.precision == recipe.precision]

        def distance(rate: TrainingRate) -> tuple[bool, float, bool]:
            apart = abs(math.log(rate.batch_size / recipe.batch_size))
            return rate.engine != recipe.engine, apart, rate.augment != recipe.augment

        return min(near, key=distance, default=None)

    def network(self, model: ModelSpec, data: str) -> NetworkRate | None:
        """The rates of a network; None where it was not measured."""
        return next(iter(_of_network(self.networks, model, data)), None)

    def with_rates(self, other: Calibration) -> Calibration:
        """This calibration with what another one of the same device has, which replaces what both have."""

        def what(rate: TrainingRate | NetworkRate) -> str:
            measured = {"images_per_second", "measured_batch", "evaluation", "line", "estimated"}
            return rate.model_dump_json(exclude=measured)

        trainings = {what(rate): rate for rate in (*self.trainings, *other.trainings)}
        networks = {what(rate): rate for rate in (*self.networks, *other.networks)}
        return other.model_copy(
            update={
                "matmul": {**self.matmul, **other.matmul},
                "trainings": tuple(trainings.values()),
                "networks": tuple(networks.values()),
            }
        )


def _of_what_is_loaded(content: bytes) -> bytes:
    """A calibration's text without rates of models and data sets of one's own that this process does not know."""
    try:
        found = json.loads(content)
        kept = {field: [rate for rate in found[field] if _is_known(rate)] for field in _RATES}
    except (ValueError, TypeError, KeyError, RecursionError):  # it is none, as whoever parses it tells
        return content
    return content if all(len(kept[f]) == len(found[f]) for f in _RATES) else json.dumps({**found, **kept}).encode()


def _unknown_rates(path: Path) -> dict[str, list[Any]]:
    """The rates of a calibration that this process leaves out, as the file has them."""
    content = json.loads(path.read_bytes())
    return {field: [rate for rate in content.get(field, []) if not _is_known(rate)] for field in _RATES}


def _is_known(rate: Any) -> bool:
    """Whether a rate's model and data set are known; what is none at all is left to be told of."""
    if not isinstance(rate, dict) or not isinstance(rate.get("model"), dict):
        return True
    model, data = rate["model"].get("name"), rate.get("data")
    if not isinstance(model, str) or not isinstance(data, str):
        return True
    return model in MODELS and data.partition("@")[0] in DATASETS


def _of_network(rates: Iterable[Rate], model: ModelSpec, data: str) -> list[Rate]:
    """The rates of a model on a data set, or on another one with images of the same shape."""
    same_model = [rate for rate in rates if rate.model == model]
    exact = [rate for rate in same_model if rate.data == data]
    shape = spec_of_form(data).info.image_shape
    return exact or [rate for rate in same_model if spec_of_form(rate.data).info.image_shape == shape]


def calibration_folder() -> Path | None:
    """Where calibrations are kept: below LTHBENCH_CACHE, or else `lthbench` in XDG_CACHE_HOME or ~/.cache, if any."""
    base = cache_folder()
    return base and base / "calibrations"


def save_calibration(found: Calibration) -> Path:
    """Add a calibration to what is kept of its device, torch version and number of threads; returns the file."""
    folder = calibration_folder()
    if folder is None:
        raise CalibrationError("there is no home directory to keep a calibration in; set LTHBENCH_CACHE to a folder")
    folder.mkdir(parents=True, exist_ok=True)
    words = f"{found.device} {found.kind} torch {found.torch} {found.threads} threads"
    path = folder / (re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-") + ".json")
    unknown: dict[str, list[Any]] = {}
    with Lease(path.with_suffix(".lease")):
        if path.exists():
            found = read_calibration(path).with_rates(found)
            unknown = _unknown_rates(path)
        content = found.model_dump(mode="json")
        for field, rates in unknown.items():
            content[field] += rates
        write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
    return path


def read_calibration(path: Path) -> Calibration:
    """Read one calibration.

    Raises:
        CalibrationError: the file is not a calibration of this version.
    """
    try:
        return parse_document(_of_what_is_loaded(read_bounded(path, LARGEST_DOCUMENT)), Calibration, path)
    except (OSError, DocumentError) as error:
        fault = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{path}: ")
        raise CalibrationError(
            f"{path}: is not a calibration that this program can use ({fault}); delete it, then run "
            "`lthbench plan SUITE --calibrate`"
        ) from error


def calibrations(torch_version: str) -> list[Calibration]:
    """All calibrations that are kept, of this torch version, GPUs first.

    Raises:
        CalibrationError: as `read_calibration`.
    """
    folder = calibration_folder()
    found = [] if folder is None else [read_calibration(path) for path in sorted(folder.glob("*.json"))]
    return sorted((c for c in found if c.torch == torch_version), key=lambda c: (c.kind != "cuda", c.device, c.threads))
