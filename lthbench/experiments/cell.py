"""`Cell`: one pair, arm and replicate, and the trainings and masks that experiments build from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from lthbench.data.spec import DataSpec, num_train_images
from lthbench.models.spec import ModelSpec
from lthbench.tasks.spec import InterpolateSpec, MaskSpec, Pruning, Task, TrainSpec, Weights
from lthbench.training.recipe import Recipe
from lthbench.training.steps import Steps


class Arm(BaseModel):
    """A named recipe that is compared with others.

    Attributes:
        recipe: of the tickets' (and the dense network's) training.
        search: of the trainings of the mask search; the same unless given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    search: Recipe


class Experiment(BaseModel):
    """One experiment of the paper: its settings, and what it reads of which tasks of a cell.

    Attributes:
        arms: the arms it is made with; None is all of them.
        shown: the metrics that summaries show first.
    """

    shown: ClassVar[tuple[str, ...]] = ("test_accuracy", "distance_relative")

    model_config = ConfigDict(frozen=True, extra="forbid")

    arms: tuple[str, ...] | None = None

    def readings(self, cell: Cell) -> Iterator[Reading]:
        """The readings of one cell; the tasks they name are what must run."""
        raise NotImplementedError


@dataclass(frozen=True)
class Reading:
    """A task, the metrics that are read of its result, and what the numbers are of.

    Attributes:
        variant: what was measured, as `ticket`, `random mask`, `dense`.
        level: pruning level, for masked networks.
        step: iteration of spawning or rewinding, where it matters.
    """

    task: Task
    variant: str
    metrics: tuple[str, ...]
    level: int | None = None
    step: int | None = None


ACCURACY = tuple(f"{split}_{m}" for split in ("test", "train", "validation") for m in ("accuracy", "loss"))
DISTANCE = ("distance", "distance_rms", "distance_relative", "distance_angle")
Levels = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


@dataclass(frozen=True)
class Cell:
    """One pair, arm and replicate.

    A network of level l is trained with SGD noise l, so that no two levels share data order, and a control of
    level l with the same noise as the ticket it is compared with.
    """

    pair: str
    arm: str
    replicate: int
    model: ModelSpec
    data: DataSpec
    pruning: Pruning
    recipe: Recipe
    search: Recipe
    _masks: dict[tuple[int, int], Task] = field(default_factory=dict, repr=False, compare=False)

    def iterations(self, steps: Steps, recipe: Recipe | None = None) -> int:
        """A point of training in iterations."""
        return steps.count((recipe or self.recipe).steps_per_epoch(num_train_images(self.data)))

    def train(
        self,
        *,
        recipe: Recipe | None = None,
        start: tuple[Task, int] | None = None,
        mask: Task | None = None,
        noise: int = 0,
        init: int = 0,
    ) -> Task:
        """A training of this cell: from the initialisation, or from `start` = (training, step), at that step on.

        Step 0 of a training from initialisation is the initialisation itself, so both have one key.
        """
        if start is not None and start[1] == 0 and isinstance(start[0].spec, TrainSpec) and not start[0].spec.start:
            start = None
        recipe = recipe or self.recipe
        if start is not None and start[1] >= self.iterations(recipe.steps, recipe):
            raise ValueError(f"a training of {recipe.steps} cannot begin at iteration {start[1]}; name an earlier step")
        spec = TrainSpec(
            model=self.model,
            data=self.data,
            recipe=recipe,
            seed=self.replicate,
            noise=noise,
            init=init,
            start=Weights(task=start[0].key, step=start[1]) if start else None,
            begin=start[1] if start else 0,
            mask=mask.key if mask else None,
        )
        return Task(spec, tuple(t for t in (start and start[0], mask) if t is not None))

    def dense(self) -> Task:
        """The dense network of this cell: level 0."""
        return self.train()

    def ticket(self, level: int, rewind: int = 0) -> Task:
        """The ticket of a level, trained: the searched mask on the weights of iteration `rewind`."""
        return self._rewound(self.recipe, level, rewind)

    def mask(self, level: int, rewind: int = 0) -> Task | None:
        """The mask of a level, found by iterative magnitude pruning with rewinding (None at level 0).

        Source: Frankle et al. 2020 (arXiv 1912.05671), algorithm 2.
        """
        for below in range(level):  # not by recursion: chains may be long
            if (below + 1, rewind) not in self._masks:
                network = self._rewound(self.search, below, rewind)
                prior = self._masks.get((below, rewind))
                spec = MaskSpec(
                    network=Weights(task=network.key),
                    prior=prior.key if prior else None,
                    level=below + 1,
                    pruning=self.pruning,
                )
                inputs = tuple(t for t in (network, prior) if t is not None)
                self._masks[below + 1, rewind] = Task(spec, inputs)
        return self._masks.get((level, rewind))

    def random_mask(self, level: int, rewind: int = 0) -> Task | None:
        """A random mask with the layer densities of the searched one."""
        searched = self.mask(level, rewind)
        if searched is None:
            return None
        spec = MaskSpec(criterion="random", like=searched.key, level=level, seed=self.replicate, draw=level)
        return Task(spec, (searched,))

    def interpolation(self, a: Task, b: Task, **options: object) -> Task:
        """The line between the ends of two trainings."""
        spec = InterpolateSpec(
            model=self.model,
            data=self.data,
            a=Weights(task=a.key),
            b=Weights(task=b.key),
            **options,
        )
        return Task(spec, (a, b))

    def _rewound(self, recipe: Recipe, level: int, rewind: int) -> Task:
        if level == 0:
            return self.train(recipe=recipe)
        start = (self.dense(), rewind) if rewind else None
        return self.train(recipe=recipe, start=start, mask=self.mask(level, rewind), noise=level)
