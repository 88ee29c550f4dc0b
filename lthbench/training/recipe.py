"""`Recipe`: every hyperparameter of one training, as validated values (no torch needed to read one)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from lthbench import registry
from lthbench.data.spec import Augment, DataSpec, num_train_images
from lthbench.fault import Fault, under
from lthbench.names import nearest
from lthbench.training.schedule import Schedule
from lthbench.training.steps import Length, Steps

if TYPE_CHECKING:
    import torch

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SGD(_Frozen):
    """Stochastic gradient descent with coupled weight decay, as torch.optim.SGD.

    Attributes:
        name: the optimizer.
        lr: the learning rate, which the schedule multiplies.
        momentum: of the heavy ball, at least 0 and below 1.
        dampening: how much less of each gradient enters the momentum.
        nesterov: Nesterov's momentum; needs a momentum, and no dampening.
        weight_decay: coefficient of the L2 penalty of all parameters, added to the gradient.
    """

    name: Literal["sgd"]
    lr: Positive
    momentum: BelowOne = 0.0
    dampening: Annotated[float, Field(ge=0, le=1)] = 0.0
    nesterov: bool = False
    weight_decay: NonNegative = 0.0

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGD:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0")
        return self


class AdamW(_Frozen):
    """Adam with decoupled weight decay, as torch.optim.AdamW; with weight_decay 0 it is Adam.

    Attributes:
        name: the optimizer.
        lr: the learning rate, which the schedule multiplies.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the root of the second mean.
        weight_decay: decoupled: each step multiplies the weights by 1 - lr * weight_decay.
    """

    name: Literal["adamw"]
    lr: Positive
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.0


class OwnOptimizer(BaseModel):
    """An optimizer that a plugin registers: its name, its rate, and further options by its own names."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str
    lr: Annotated[float, Field(gt=0, strict=True)]

    @model_validator(mode="after")
    def _are_options(self) -> OwnOptimizer:
        known = inspect.signature(self.torch_class).parameters
        for key, value in self.options.items():
            if key not in known or key == "params":
                raise ValueError(
                    f"{key}: unknown option of {registry.told('optimizer', self.name)}{nearest(key, known)}"
                )
            if isinstance(value, dict):
                raise ValueError(f"{key}: expected a number, a truth value, text or a list, found a mapping")
        return self

    @property
    def torch_class(self) -> type[torch.optim.Optimizer]:
        """What makes it."""
        found = OPTIMIZERS[self.name]
        assert found is not None
        return found

    @property
    def options(self) -> dict[str, Any]:
        """What is given beside the rate; lists are tuples, as torch expects."""
        given: Mapping[str, Any] = self.model_extra or {}
        return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


# What makes an optimizer that a plugin brought; those that ship with the package have masked ones of their own.
OPTIMIZERS: dict[str, type[torch.optim.Optimizer] | None] = {"sgd": None, "adamw": None}
OptimizerClass = TypeVar("OptimizerClass", bound="type[torch.optim.Optimizer]")


def register_optimizer(name: str) -> Callable[[OptimizerClass], OptimizerClass]:
    """Add an optimizer of torch's kind, which a suite names by `optimizer: {name: NAME, lr: ...}` with its options.

    It is masked from without: before a step the gradients of pruned weights are 0 and the pull is added to the others,
    after it pruned weights and their state are exactly 0. Its state may hold tensors and numbers.

        register_optimizer("adagrad")(torch.optim.Adagrad)

    Raises:
        PluginError: the name is taken, no plugin is being loaded, or the class has no `lr` or needs a closure.
    """

    def register(cls: OptimizerClass) -> OptimizerClass:
        told = f"{cls.__module__}.{cls.__qualname__}"
        if "lr" not in inspect.signature(cls).parameters:
            raise registry.PluginError(f"optimizer '{name}': {told} takes no `lr`, which schedules change")
        closure = inspect.signature(cls.step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise registry.PluginError(f"optimizer '{name}': {told} needs a closure, and a step here has one pass")
        registry.add("optimizer", OPTIMIZERS, name, cls)
        return cls

    return register


def has_weight_decay(optimizer: Optimizer) -> bool:
    """Whether an optimizer takes a weight decay."""
    return (
        not isinstance(optimizer, OwnOptimizer) or "weight_decay" in inspect.signature(optimizer.torch_class).parameters
    )


def _own_or_shipped(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    name = value.get("name") if isinstance(value, dict) else None
    if isinstance(value, OwnOptimizer) or (isinstance(name, str) and OPTIMIZERS.get(name) is not None):
        return OwnOptimizer.model_validate(value)
    if isinstance(name, str) and name not in OPTIMIZERS:
        raise ValueError(registry.unknown_name("optimizer", name, OPTIMIZERS))
    return handler(value)


if TYPE_CHECKING:
    Optimizer = SGD | AdamW | OwnOptimizer
else:
    Optimizer = SerializeAsAny[Annotated[SGD | AdamW, Field(discriminator="name"), WrapValidator(_own_or_shipped)]]


Engine = Literal["torch", "blocked"]


class Recipe(_Frozen):
    """Every hyperparameter of one training.

    Attributes:
        steps: the length T of a training from initialisation; a rewound one runs from step k to T.
        batch_size: images per update; the last batch of an epoch may be smaller.
        drop_last: leave out an epoch's last batch where it is smaller (of other images in each epoch).
        optimizer: the update rule and its learning rate.
        schedule: how the learning rate changes.
        augment: random changes to each training image.
        label_smoothing: of the training loss only.
        precision: of forward and backward pass; weights, updates, losses and evaluation are always float32.
        micro_batch: forward and backward pass take so many images of a batch at a time, which saves memory; None is
            the whole batch. Batch normalisation sees one micro batch at a time ("ghost batch normalisation", Hoffer
            et al. 2017, arXiv 1705.08741), which is another training; without it only rounding differs.
        ema: decay of the moving average of weights and normalisation statistics, which then are the training's result:
            stored, evaluated, pruned, its distance measured. Kept steps and the path are the weights'.
        engine: what computes forward and backward passes: `torch`; or `blocked`, on a CPU in float32, convolutions and
            linear layers over the kept weights alone, the former in the batch-blocked layout, in which the trained
            network is evaluated too. Only rounding differs, and how fast it is.
        pull: lambda of the L2-to-init penalty (L2-SP) (lambda/2) ||m (theta - theta_0)||^2.
    """

    steps: Length
    batch_size: Annotated[int, Field(ge=1)]
    drop_last: bool = False
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    label_smoothing: BelowOne = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    ema: BelowOne = 0.0
    engine: Engine = "torch"
    pull: NonNegative = 0.0

    @model_validator(mode="after")
    def _micro_batch_is_smaller(self) -> Recipe:
        if self.micro_batch is not None and self.micro_batch >= self.batch_size:
            raise ValueError(
                f"micro_batch is {self.micro_batch}, no smaller than the batch_size of {self.batch_size}; leave it out"
            )
        return self

    def names(self) -> Iterator[registry.Used]:
        """The names that it has of what plugins may bring, by kind."""
        yield "optimizer", self.optimizer.name
        yield "schedule", self.schedule.name
        yield from (("augmentation", name) for name in self.augment.own)

    @property
    def may_draw(self) -> bool:
        """Whether its optimizer may draw from torch's generator."""
        return isinstance(self.optimizer, OwnOptimizer)

    def faults(self, data: DataSpec) -> Iterator[Fault]:
        """What this recipe asks for and a data set rules out: points beyond its length, augmentation of other
        images."""
        num_images, schedule = num_train_images(data), self.schedule
        total = self.iterations(self.steps, num_images)
        end = f"the training of {self.steps} has {total:,} iterations"
        before, last = 0, None
        for position, milestone in enumerate(schedule.milestones):
            at = self.iterations(milestone, num_images)
            if at >= total:
                message = f"{milestone}, iteration {at:,}, never comes: {end}"
            elif last is not None and at <= before:
                message = f"{milestone} does not come after {last}; milestones ascend"
            else:
                before, last = at, milestone
                continue
            yield Fault(("schedule", "milestones", position), message)
            break
        if (warmup := self.iterations(schedule.warmup, num_images)) > total:
            message = f"{schedule.warmup}, {warmup:,} iterations, never ends: {end}"
            yield Fault(("schedule", "warmup"), message)
        if fault := schedule.fault(total, self.steps_per_epoch(num_images)):
            yield Fault(("schedule", "name"), fault)
        yield from under(self.augment.faults(data), "augment")

    def scaled(self, factor: float, steps_per_epoch: int) -> Recipe:
        """This recipe with its length, milestones and warm-up times `factor`: the same schedule, compressed."""
        schedule = self.schedule.model_copy(
            update={
                "milestones": tuple(m.scaled(factor, steps_per_epoch) for m in self.schedule.milestones),
                "warmup": self.schedule.warmup.scaled(factor, steps_per_epoch),
            }
        )
        return self.model_copy(update={"steps": self.steps.scaled(factor, steps_per_epoch), "schedule": schedule})

    def scaled_to(self, length: Steps, steps_per_epoch: int, num_images: int) -> Recipe:
        """This recipe, its schedule compressed or stretched to `length` on another number of images.

        steps_per_epoch is that of the recipe's own data; epochs of `length` are epochs of the new images, and a share
        is of the recipe's own iterations.
        """
        own = self.steps.count(steps_per_epoch)
        return self.scaled(length.count(self.steps_per_epoch(num_images), own) / own, steps_per_epoch)

    def iterations(self, point: Steps, num_images: int) -> int:
        """A point of this training on `num_images` images, in iterations."""
        per_epoch = self.steps_per_epoch(num_images)
        return point.count(per_epoch, self.steps.count(per_epoch))

    def steps_per_epoch(self, num_images: int) -> int:
        """Iterations in one pass over `num_images` images."""
        if self.drop_last:
            return max(1, num_images // self.batch_size)
        return -(-num_images // self.batch_size)

    def images_per_epoch(self, num_images: int) -> int:
        """How many of `num_images` images an epoch presents."""
        return min(num_images, self.steps_per_epoch(num_images) * self.batch_size)

    def fewest_at_once(self, num_images: int) -> int:
        """The fewest images of a forward and backward pass of this training on `num_images` images."""
        sizes = [min(self.batch_size, num_images)]
        last = self.images_per_epoch(num_images) % sizes[0]
        if last and self.iterations(self.steps, num_images) >= self.steps_per_epoch(num_images):
            sizes.append(last)
        micro = self.micro_batch
        return min(size if micro is None or size <= micro else size % micro or micro for size in sizes)
