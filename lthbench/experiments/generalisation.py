"""What tickets are good for beside their own task: frozen features, few-shot learning, transfer.

The paper's abstract: tickets of early-stable recipes encode features in their untrained weights, and transfer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from lthbench.data.spec import DATASETS, DataSpec
from lthbench.experiments.cell import Cell
from lthbench.experiments.controls import REINITIALISATION
from lthbench.experiments.experiment import ACCURACY, DISTANCE, Experiment, PrunedLevels, Reading
from lthbench.experiments.imp import searched_mask
from lthbench.tasks.spec import Task
from lthbench.training.steps import Steps

Network = Literal["ticket", "dense", "random", "reinit", "shuffled-weights"]
Normalisation = Literal["batch", "estimated", "none", "affine"]
Networks = Annotated[tuple[Network, ...], Field(min_length=1)]


def untrained(cell: Cell, network: Network, level: int) -> tuple[Task | None, dict[str, Any]]:
    """The mask and the further fields of a training that starts from an untrained network of a level."""
    searched = searched_mask(cell, level, 0)
    match network:
        case "dense":
            return None, {"noise": level}
        case "random":
            return cell.imitated_mask("random", searched, level), {"noise": level}
        case "reinit":
            return searched, {"noise": level, "init": REINITIALISATION}
        case "shuffled-weights":
            return searched, {"noise": level, "shuffle": True}
        case "ticket":
            return searched, {"noise": level}


class FrozenFeatures(Experiment):
    """Linear probes on untrained networks: only the output layer is fitted.

    Attributes:
        networks: the ticket and the networks it is compared with.
        normalisation: what normalisation layers do (TrainSpec.probe).
        levels: the levels of the masks.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "untrained_test_accuracy")

    networks: Networks = ("ticket", "dense", "random", "reinit", "shuffled-weights")
    normalisation: tuple[Normalisation, ...] = ("estimated",)
    levels: PrunedLevels

    def readings(self, cell: Cell) -> Iterator[Reading]:
        for level in self.levels:
            for network in self.networks:
                for rule in self.normalisation:
                    mask, fields = untrained(cell, network, level)
                    task = cell.train(mask=mask, probe=rule, **fields)
                    metrics = (*ACCURACY, "untrained_test_accuracy", "penalty")
                    yield Reading(task, f"probe of {network}, {rule}", metrics, level=level)


class FewShot(Experiment):
    """Networks trained on a few images of each class; the mask was found with all of them.

    Attributes:
        per_class: images of each class; the draws of one replicate are nested.
        draws: how many draws of images.
        steps: the length of each training, whose schedule is the recipe's, compressed or stretched to it.
        networks: the ticket and the networks it is compared with.
        levels: the levels of the masks.
        target: another data set to learn from few images, with a new output layer; None is the source itself.
    """

    per_class: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 5, 10, 25, 50, 100)
    draws: Annotated[int, Field(ge=1)] = 5
    steps: Steps
    networks: Annotated[tuple[Network, ...], Field(min_length=1)] = ("ticket", "dense", "random")
    levels: PrunedLevels
    target: DataSpec | None = None

    def readings(self, cell: Cell) -> Iterator[Reading]:
        data = self.target or cell.data
        fields: dict[str, Any] = {"data": data, "new_head": data.name != cell.data.name}
        for level in self.levels:
            for network in self.networks:
                mask, more = untrained(cell, network, level)
                for count in self.per_class:
                    recipe = cell.recipe.scaled_to(
                        self.steps, cell.steps_per_epoch(), count * DATASETS[data.name].num_classes
                    )
                    for draw in range(self.draws):
                        task = cell.train(recipe=recipe, mask=mask, per_class=count, draw=draw, **fields, **more)
                        name = f"{network}, {count} per class" + (f" of {data.name}" if self.target else "")
                        yield Reading(task, name, ACCURACY + DISTANCE, level=level)


class Target(BaseModel):
    """A data set that masks are moved to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: DataSpec
    steps: Steps | None = None


class Transfer(Experiment):
    """Masks with their initial weights on another data set: trained in full, and probed.

    Attributes:
        targets: the data sets, of images of the source's shape; `steps` changes the length of training.
        ways: `train`, everything is trained; `probe`, only the new output layer.
        networks: the ticket and the networks it is compared with.
        levels: the levels of the masks.
    """

    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    ways: tuple[Literal["train", "probe"], ...] = ("train", "probe")
    networks: Annotated[tuple[Network, ...], Field(min_length=1)] = ("ticket", "dense", "random")
    levels: PrunedLevels

    def readings(self, cell: Cell) -> Iterator[Reading]:
        for target in self.targets:
            shape, own = target.data.info.image_shape, cell.data.info.image_shape
            if shape != own:
                raise ValueError(f"the images of {target.data.name} are {shape}, those of {cell.data.name} {own}")
            recipe = cell.recipe
            if target.steps is not None:
                recipe = cell.recipe.model_copy(update={"steps": target.steps})
            fields: dict[str, Any] = {"data": target.data, "new_head": target.data.name != cell.data.name}
            for level in self.levels:
                for network in self.networks:
                    mask, more = untrained(cell, network, level)
                    for way in self.ways:
                        probe: dict[str, Any] = {"probe": "estimated"} if way == "probe" else {}
                        task = cell.train(recipe=recipe, mask=mask, **fields, **more, **probe)
                        name = f"{way} {network} on {target.data.name}"
                        yield Reading(task, name, ACCURACY + DISTANCE, level=level)
