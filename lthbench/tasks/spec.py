"""The three kinds of task as values, and the key under which each one's result is stored (no torch needed).

A specification is everything that determines a task's result. Its key is the hash of its canonical form: JSON
with sorted keys, without the fields that have their default value, with the schema version. It refers to other tasks by
their keys. So equal work has equal keys, in whatever experiment it occurs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from lthbench import registry
from lthbench.data.spec import DataSpec, num_train_images
from lthbench.models.spec import ModelSpec
from lthbench.registry import Used
from lthbench.tasks.criteria import CRITERIA
from lthbench.training.recipe import Recipe

# Raise it when a change alters the result of an unchanged specification.
SCHEMA_VERSION = 2

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def canonical(self) -> str:
        """The canonical JSON text that is hashed; of a task that uses something of a plugin, with its digest."""
        content = {"schema": SCHEMA_VERSION, **self.model_dump(mode="json", exclude_defaults=True)}
        content["kind"] = self.kind  # type: ignore[attr-defined]
        if plugins := registry.identities(self.names()):
            content["plugins"] = plugins
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    def names(self) -> Iterator[Used]:
        """The names that it has of what plugins may bring, by kind."""
        raise NotImplementedError


def _is_criterion(name: str) -> str:
    if name not in CRITERIA:
        raise ValueError(registry.unknown_name("pruning criterion", name, CRITERIA))
    return name


CriterionName = Annotated[str, AfterValidator(_is_criterion)]


class Weights(BaseModel):
    """The weights of a training: at its end, or at a kept step (iterations since initialisation)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Key
    step: Annotated[int, Field(ge=0)] | None = None


class TrainSpec(_Spec):
    """Training: from weights, a mask, data and a recipe to weights, kept steps and metrics.

    Attributes:
        seed: the replicate; names the initialisation and all other streams.
        noise: the index of the SGD noise (data order and augmentation).
        init: the index of the initialisation; 0 is the replicate's own, others are reinitialisations.
        start: weights to start from instead of an initialisation.
        begin: the iteration at which the schedule and the streams begin (the rewinding step k).
        stop: the iteration at which training ends early, with the schedule of the whole recipe.
        mask: the mask task whose mask is applied during training; None is the dense network.
        new_head: the start or mask comes from another data set: the output layer is initialised anew, and dense.
        shuffle: the initial weights are permuted among the surviving positions of each layer (a control).
        anchor: the index of the initialisation that is the centre of the penalty `recipe.pull`, 0 for the training's
            own (`init`); or `zero`, an L2 penalty of the prunable weights themselves (a control).
        per_class: train on so many images of each class (few-shot); None is all.
        draw: the index of the few-shot draw; within a draw, a smaller number's images are among a larger one's.
        probe: freeze everything but the output layer, under the mask, and fit that layer, dense under every rule, by
            logistic regression on the features; normalisation uses the statistics of each `batch`, those `estimated` on
            the train images, or `none`. `affine` instead trains the output layer and the normalisation's scales and
            shifts by the recipe.
        track: record the validation accuracy every so many iterations, and how often each train image is forgotten;
            this changes no weight.
    """

    kind: Literal["train"] = "train"
    model: ModelSpec
    data: DataSpec
    recipe: Recipe
    seed: Annotated[int, Field(ge=0)]
    noise: Annotated[int, Field(ge=0)] = 0
    init: Annotated[int, Field(ge=0)] = 0
    start: Weights | None = None
    begin: Annotated[int, Field(ge=0)] = 0
    stop: Annotated[int, Field(ge=1)] | None = None
    mask: Key | None = None
    new_head: bool = False
    shuffle: bool = False
    anchor: Annotated[int, Field(ge=0)] | Literal["zero"] = 0
    per_class: Annotated[int, Field(ge=1)] | None = None
    draw: Annotated[int, Field(ge=0)] = 0
    probe: Literal["batch", "estimated", "none", "affine"] | None = None
    track: Annotated[int, Field(ge=1)] | None = None

    @property
    def num_images(self) -> int:
        """The number of images that it is trained on, or that a probe is fitted to."""
        if self.per_class is not None:
            return self.per_class * self.data.num_labels
        return num_train_images(self.data)

    def names(self) -> Iterator[Used]:
        yield "model", self.model.name
        yield from self.recipe.names()


class Pruning(BaseModel):
    """What is pruned, how much, and over which layers a threshold is shared.

    Attributes:
        rate: the fraction of the survivors pruned at each level (0.2 in the literature).
        scope: `global`, one threshold over all layers of a rate; `layer`, each layer its own.
        exclude: layers never pruned: `head`, `stem` or patterns of parameter names.
        rates: other rates for some layers, by `head`, `stem` or pattern; layers of one entry share a threshold.
        criterion: by which masks are searched: `magnitude`, `movement`, or one that a plugin registers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.2
    scope: Literal["global", "layer"] = "global"
    exclude: tuple[str, ...] = ()
    rates: dict[str, Annotated[float, Field(ge=0, lt=1)]] = {}
    criterion: CriterionName = "magnitude"

    @field_validator("exclude")
    @classmethod
    def _sorted(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(value)))


def layers_of(entry: str, prunable: Sequence[str]) -> list[str]:
    """The layers that an entry of `Pruning.exclude` or `rates` names, of the prunable ones in parameter order."""
    pattern = {"head": prunable[-1], "stem": prunable[0]}.get(entry, entry)
    return [name for name in prunable if fnmatchcase(name, pattern)]


def num_survivors(total: int, rate: float, level: int) -> int:
    """Exactly how many of `total` weights survive `level` prunings: total * (1 - rate)^level, to the nearest.

    The rate is read as the decimal that was written, so 0.2 is 1/5 and no rounding accumulates over levels.
    """
    return round(total * (1 - Fraction(str(rate))) ** level)


class MaskSpec(_Spec):
    """Pruning: from a trained network and its mask to the mask of `level`.

    Attributes:
        network: the trained weights that are ranked.
        prior: the mask of its training; None if it was dense.
        level: the level of the new mask; the number of survivors follows from `pruning`.
        criterion: `magnitude`, lowest |w| first; `movement`, lowest |w| - |w at the start| first (Zhou et al. 2019,
            "magnitude increase"); `random`, survivors drawn at random with the layer densities of the mask `like`;
            `shuffled`, the units of each layer of `like` permuted, outputs and inputs, so that unit densities stay; or
            one that a plugin registers.
        ticket: for `imported`, the digest of a ticket made elsewhere, in the store's `tickets`. Where initial weights
            came with it, they are written beside the mask, as the start of trainings.
        like: for `random` and `shuffled`, the mask to imitate.
        seed, draw: select their random stream.
    """

    kind: Literal["mask"] = "mask"
    level: Annotated[int, Field(ge=1)]
    pruning: Pruning = Pruning()
    criterion: CriterionName | Literal["random", "shuffled", "imported"] = "magnitude"
    network: Weights | None = None
    prior: Key | None = None
    like: Key | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    draw: Annotated[int, Field(ge=0)] = 0
    ticket: Sha256 | None = None

    def names(self) -> Iterator[Used]:
        yield "criterion", self.criterion


class InterpolateSpec(_Spec):
    """Interpolation: from two trained networks to loss and error at points of the path between them, on every split.

    Attributes:
        a, b: the two ends.
        points: evenly spaced alphas from 0 to 1, ends included (30 in the literature).
        statistics: normalisation statistics `interpolate`d like weights, or `recompute`d at each point from
            `statistics_images` train images (stratified by class, the same at every point and end).
        num_train: the number of train images, drawn likewise, for the train error; None is all of them.
    """

    kind: Literal["interpolate"] = "interpolate"
    model: ModelSpec
    data: DataSpec
    a: Weights
    b: Weights
    points: Annotated[int, Field(ge=3)] = 30
    statistics: Literal["interpolate", "recompute"] = "interpolate"
    statistics_images: Annotated[int, Field(ge=1)] = 2000
    num_train: Annotated[int, Field(ge=1)] | None = None

    def names(self) -> Iterator[Used]:
        yield "model", self.model.name


Spec = Annotated[TrainSpec | MaskSpec | InterpolateSpec, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[TrainSpec | MaskSpec | InterpolateSpec] = TypeAdapter(Spec)


def parse_spec(text: str) -> TrainSpec | MaskSpec | InterpolateSpec:
    """Read a specification back from its canonical text.

    Raises:
        ValueError: its schema version is another.
        PluginError: it needs a plugin that is not loaded, or is another version.
    """
    content = json.loads(text)
    version = content.pop("schema", None)
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"the specification has schema version {version}, this program {SCHEMA_VERSION}; "
            "use the version of lthbench that wrote it, or another store"
        )
    registry.require(content.pop("plugins", {}))
    return _ADAPTER.validate_python(content)


@dataclass(frozen=True, eq=False)
class Task:
    """A specification together with the tasks that it refers to."""

    spec: TrainSpec | MaskSpec | InterpolateSpec
    inputs: tuple[Task, ...] = field(default=(), repr=False)

    @cached_property
    def canonical(self) -> str:
        return self.spec.canonical()

    @cached_property
    def key(self) -> str:
        """The key of the task's result: 128 bits of the hash of its canonical specification."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()[:32]

    def with_fields(self, **fields: object) -> Task:
        """The task with some fields of its specification changed, and the same inputs."""
        return Task(self.spec.model_copy(update=fields), self.inputs)

    def weights_needed(self) -> list[Weights]:
        """The weights of other tasks that this one reads; those with a step must be kept by their training."""
        refs = [getattr(self.spec, name, None) for name in ("start", "network", "a", "b")]
        return [ref for ref in refs if isinstance(ref, Weights)]
