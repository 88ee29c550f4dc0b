"""How tickets generalise beyond their own task: frozen features, few-shot learning, transfer.

The paper's abstract: tickets of early-stable recipes encode features in their untrained weights, and transfer. Its list
of changes varies the mask-search budget in all three, hence `budgets`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

from lthbench.data.spec import DataSpec, num_train_images
from lthbench.experiments.aimp import Budgets, budget_faults, with_budget
from lthbench.experiments.cell import Cell
from lthbench.experiments.controls import CONTROLS, Kind, mask_and_fields
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Experiment, Measurement, PrunedLevels
from lthbench.experiments.imp import searched_mask
from lthbench.fault import Fault
from lthbench.tasks.spec import Task
from lthbench.training.steps import Length, Steps

Network = Literal["ticket", "dense", Kind]
Normalisation = Literal["batch", "estimated", "none", "affine"]
# As variants name them, with a smaller budget of the mask search too.
UNTRAINED = tuple(f"{network}{budget}" for network in get_args(Network) for budget in ("", " (budget *)"))


class Untrained(NamedTuple):
    """An untrained network of a level: its name in variants, its mask, and the fields of a training from it."""

    name: str
    level: int
    mask: Task | None
    fields: dict[str, Any]


class _OfNetworks(Experiment):
    """Settings of all three.

    Attributes:
        networks: the `ticket`, and what it is compared with: the `dense` network and its controls (`Controls.kinds`).
        levels: the levels of the masks.
        budgets: fractions of the mask-search budget; the networks of b < 1 are named `ticket (budget 0.25)`.
    """

    networks: Annotated[tuple[Network, ...], Field(min_length=1)] = ("ticket", "dense", "random")
    levels: PrunedLevels
    budgets: Budgets = (1,)

    def untrained(self, cell: Cell) -> Iterator[Untrained]:
        """The networks that are compared, level by level; those without a searched mask do not depend on the budget."""
        for level in self.levels:
            for network in self.networks:
                is_searched = network == "ticket" or (network != "dense" and CONTROLS[network].is_searched)
                for budget in self.budgets[: None if is_searched else 1]:
                    name = f"{network} (budget {budget:g})" if is_searched and budget != 1 else network
                    searching = with_budget(cell, budget, "compressed")
                    yield Untrained(name, level, *untrained(searching, network, level))

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from budget_faults(self.budgets, cell)


def untrained(cell: Cell, network: Network, level: int) -> tuple[Task | None, dict[str, Any]]:
    """The mask and the further fields of a training that starts from an untrained network of a level."""
    if network == "dense":
        return None, {"noise": level}
    if network == "ticket":
        return searched_mask(cell, level, 0), {"noise": level}
    return mask_and_fields(cell, network, level, 0)


class FrozenFeatures(_OfNetworks):
    """Linear probes on untrained networks: only the output layer is fitted, and it is dense in every case.

    The mask is that of the features, and so is the density, without the output layer.

    Measurements: `probe of NETWORK, RULE`, with accuracies, `penalty`, and `untrained_test_accuracy`, that of the
        original output layer, under its mask, before fitting.

    Attributes:
        normalisation: what normalisation layers do (TrainSpec.probe). Without batch normalisation all rules but
            `affine` are one task.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "untrained_test_accuracy")
    variants: ClassVar = tuple(f"probe of {name}, {rule}" for name in UNTRAINED for rule in get_args(Normalisation))
    metrics: ClassVar = (*ACCURACY, "untrained_test_accuracy", "penalty")
    headlines: ClassVar = (
        ("probe of ticket, estimated", "test_accuracy", "of a probe of the untrained ticket"),
        ("probe of random, estimated", "test_accuracy", "of a probe of an untrained random mask"),
    )

    networks: Annotated[tuple[Network, ...], Field(min_length=1)] = (
        "ticket",
        "dense",
        "random",
        "reinit",
        "shuffled-weights",
    )
    normalisation: tuple[Normalisation, ...] = ("estimated",)

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        for network in self.untrained(cell):
            for rule in self.normalisation:
                same = rule == "affine" or cell.model.has_batchnorm(cell.data.info)
                task = cell.train(mask=network.mask, probe=rule if same else "estimated", **network.fields)
                yield Measurement(task, f"probe of {network.name}, {rule}", self.metrics, level=network.level)


class FewShot(_OfNetworks):
    """Networks trained on a few images of each class; the mask was found with all images.

    Measurements: `NETWORK, N per class`, and `NETWORK, N per class of DATA` with a target; with accuracies and
    distances. All draws of a replicate have the same variant.

    Attributes:
        per_class: images of each class; the draws of one replicate are nested.
        draws: how many draws of images.
        steps: the length of each training, whose schedule is the recipe's, compressed or stretched to it.
        target: another data set to learn from few images, with a new output layer; None is the source itself.
    """

    variants: ClassVar = tuple(f"{name}, * per class{of}" for name in UNTRAINED for of in ("", " of *"))
    metrics: ClassVar = ACCURACY + DISTANCE

    per_class: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 5, 10, 25, 50, 100)
    draws: Annotated[int, Field(ge=1, le=1000)] = 5
    steps: Steps
    target: DataSpec | None = None

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        data = self.target or cell.data
        moved = moved_to(data, cell)
        for network in self.untrained(cell):
            for count in self.per_class:
                recipe = cell.recipe.scaled_to(self.steps, cell.steps_per_epoch(), count * data.num_labels)
                for draw in range(self.draws):
                    fields = moved | network.fields
                    task = cell.train(recipe=recipe, mask=network.mask, per_class=count, draw=draw, **fields)
                    name = f"{network.name}, {count} per class" + (f" of {data.title}" if self.target else "")
                    yield Measurement(task, name, ACCURACY + DISTANCE, level=network.level)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from super().faults(cell)
        data = self.target or cell.data
        if self.target is not None:
            yield from shape_faults(data, cell, "target")
        if self.steps == Steps():
            yield Fault(("steps",), f"{self.steps} is not a training; give an iteration at least")
        # Classes are as nearly equal as a set allows, so that the smallest has no more than the mean.
        smallest = num_train_images(data) // data.num_labels
        for position, count in enumerate(self.per_class):
            if count > smallest:
                message = f"{count} images of each class are more than {data.title} has to train on ({smallest:,})"
                yield Fault(("per_class", position), message)


class Target(BaseModel):
    """A data set that masks are moved to.

    Attributes:
        data: as a pair's.
        steps: the length of the trainings on it; the recipe's own unless given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataSpec
    steps: Length | None = None


class Transfer(_OfNetworks):
    """Masks with their initial weights on another data set: trained in full, and probed.

    Measurements: `train NETWORK on DATA` and `probe NETWORK on DATA`, with accuracies and, where it is trained,
    distances; DATA is `DataSpec.title`, as `cifar100 [0-49]`.

    Attributes:
        targets: the data sets, of images of the source's shape; `steps` changes the length of training.
        ways: `train`, everything is trained; `probe`, only the new output layer.
        native: also the ticket that the same arm finds on the target itself, as `train native ticket on DATA`.
    """

    variants: ClassVar = tuple(
        f"{way} {name} on *" for way in ("train", "probe") for name in (*UNTRAINED, "native ticket")
    )
    metrics: ClassVar = ACCURACY + DISTANCE

    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    ways: tuple[Literal["train", "probe"], ...] = ("train", "probe")
    native: bool = False

    def there(self, target: Target, cell: Cell) -> Cell:
        """The cell on the target itself."""
        changes: dict[str, Any] = {"steps": target.steps} if target.steps is not None else {}
        return replace(
            cell,
            data=target.data,
            recipe=cell.recipe.model_copy(update=changes),
            search=cell.search.model_copy(update=changes),
        )

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        for target in self.targets:
            there = self.there(target, cell)
            moved = moved_to(target.data, cell)
            networks = [(network, network.fields | moved) for network in self.untrained(cell)]
            if self.native:
                for level in self.levels:
                    found = Untrained("native ticket", level, *untrained(there, "ticket", level))
                    networks.append((found, found.fields))
            for network, fields in networks:
                for way in self.ways:
                    probe: dict[str, Any] = {"probe": "estimated"} if way == "probe" else {}
                    task = there.train(mask=network.mask, **fields, **probe)
                    name = f"{way} {network.name} on {target.data.title}"
                    yield Measurement(task, name, ACCURACY + DISTANCE, level=network.level)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        yield from super().faults(cell)
        for position, target in enumerate(self.targets):
            shapes = list(shape_faults(target.data, cell, "targets", position, "data"))
            yield from shapes
            if not shapes:
                key = ("targets", position, *(("steps",) if target.steps is not None else ()))
                for path, message in self.there(target, cell).recipe.faults(target.data):
                    name = ".".join(map(str, path))
                    yield Fault(key, f"the recipe of arm '{cell.arm}' does not fit: {name}: {message}")


def shape_faults(data: DataSpec, cell: Cell, *path: str | int) -> Iterator[Fault]:
    """Whether images of other data, given at a path, have the shape that the cell's networks take."""
    shape, own = data.info.image_shape, cell.data.info.image_shape
    if shape != own:
        message = f"the images of {data.name} are {shape}, those of {cell.data.name} {own}"
        yield Fault((*path, "name"), message)


def moved_to(data: DataSpec, cell: Cell) -> dict[str, Any]:
    """The fields of a training of the cell's networks on other data."""
    return {"data": data, "new_head": not data.has_classes_of(cell.data)}
