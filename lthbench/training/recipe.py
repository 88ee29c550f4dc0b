"""`Recipe`: every hyperparameter of one training, as validated values (no torch needed to read one)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lthbench.data.spec import Augment, DataSpec, num_train_images
from lthbench.fault import Fault, under
from lthbench.training.steps import Length, Steps

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


Optimizer = Annotated[SGD | AdamW, Field(discriminator="name")]


class Schedule(_Frozen):
    """The learning rate as a multiple of the optimizer's, at each iteration.

    Attributes:
        name: `constant`; `step` (times gamma at each milestone); `cosine` (from 1 to 0 between warm-up and end).
        milestones: for `step`, the points at which the rate is multiplied by gamma.
        gamma: the factor of each milestone.
        warmup: the rate grows linearly over these first steps; iteration t (from 0) has t / warmup of it, as open_lth
            and pytorch-cifar100 count, so that the very first update moves nothing.
    """

    name: Literal["constant", "step", "cosine"] = "constant"
    milestones: tuple[Steps, ...] = ()
    gamma: Positive = 0.1
    warmup: Steps = Steps()

    @model_validator(mode="after")
    def _milestones_belong_to_step(self) -> Schedule:
        if self.milestones and self.name != "step":
            raise ValueError(f"milestones are for the step schedule, but name is {self.name}")
        return self

    def factor(self, iteration: int, total: int, steps_per_epoch: int) -> float:
        """The multiple of the learning rate at `iteration` (0-based) of `total`."""
        warmup = self.warmup.count(steps_per_epoch, total)
        factor = min(1.0, iteration / warmup) if warmup else 1.0
        if self.name == "step":
            passed = sum(iteration >= m.count(steps_per_epoch, total) for m in self.milestones)
            factor *= self.gamma**passed
        elif self.name == "cosine":
            progress = max(0, iteration - warmup) / max(1, total - warmup)
            factor *= 0.5 * (1.0 + math.cos(math.pi * progress))
        return factor


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
        engine: what computes forward and backward passes: `torch`; or `blocked`, on a CPU in float32, convolutions over
            the kept weights alone in the batch-blocked layout. Only rounding differs, and how fast it is.
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
    engine: Literal["torch", "blocked"] = "torch"
    pull: NonNegative = 0.0

    @model_validator(mode="after")
    def _micro_batch_is_smaller(self) -> Recipe:
        if self.micro_batch is not None and self.micro_batch >= self.batch_size:
            raise ValueError(
                f"micro_batch is {self.micro_batch}, no smaller than the batch_size of {self.batch_size}; leave it out"
            )
        return self

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
