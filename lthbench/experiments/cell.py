"""`Cell`: one pair, arm and replicate, and the trainings, masks and interpolations that experiments build from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lthbench.data.spec import DataSpec, num_train_images
from lthbench.models.spec import ModelSpec
from lthbench.tasks.spec import InterpolateSpec, MaskSpec, Pruning, Task, TrainSpec, Weights
from lthbench.training.recipe import Recipe
from lthbench.training.steps import Steps

Result = Mapping[str, Any]
Anchor = int | Literal["zero"]

# The first of the replicates that only choose. Far above any number of tested ones, so that raising `replicates` never
# turns one into the other.
FIRST_SELECTION_REPLICATE = 1_000_000


def is_selection(replicate: int) -> bool:
    """Whether a replicate only chooses (a strength, a setting), and is in no test."""
    return replicate >= FIRST_SELECTION_REPLICATE


class Arm(BaseModel):
    """A named recipe that is compared with others.

    Attributes:
        recipe: of the tickets' (and the dense network's) training.
        search: of the trainings of the mask search; the same unless given.
        stability_class: whether the recipe is assumed to be early- or late-stable (`class` in suites); None is neither.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: Recipe
    search: Recipe
    stability_class: Annotated[Literal["early", "late"] | None, Field(alias="class")] = None


@dataclass(frozen=True)
class Cell:
    """One pair, arm and replicate.

    A network of level l is trained with SGD noise l, so that no two levels share data order, and a control of
    level l with the same noise as the ticket it is compared with.

    Attributes:
        arms: all arms of the pair, for experiments that cross them.
        result_of: the result of a task, or None. Experiments that choose their next task by results call it.
        selection_replicates: how many the suite has; their choices hold for all replicates.
        search_anchor, search_stop: `anchor` and `stop` (TrainSpec) of the trainings of the mask search.
    """

    pair: str
    arm: str
    replicate: int
    model: ModelSpec
    data: DataSpec
    pruning: Pruning
    recipe: Recipe
    search: Recipe
    arms: Mapping[str, Arm] = field(default_factory=dict, repr=False)
    result_of: Callable[[Task], Result | None] = field(default=lambda task: None, repr=False)
    selection_replicates: int = 0
    search_anchor: Anchor = 0
    search_stop: int | None = None
    # Level and rewind -> mask. Masks depend on everything else in a cell; `replace` does not pass them on, so a changed
    # cell starts with none.
    _masks: dict[tuple[int, int], Task] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def is_selection(self) -> bool:
        """Whether this is of a replicate that only chooses, and is in no test."""
        return is_selection(self.replicate)

    @property
    def chooses(self) -> bool:
        """Whether this cell's results decide choices."""
        return self.is_selection or not self.selection_replicates

    @property
    def replicate_name(self) -> str:
        """The replicate for people: `#0`, or `selection #0`."""
        return f"selection #{self.replicate - FIRST_SELECTION_REPLICATE}" if self.is_selection else f"#{self.replicate}"

    def choosing(self) -> tuple[Cell, ...]:
        """The cells whose results decide this one's choices: those of the selection replicates, or itself without
        any."""
        if not self.selection_replicates:
            return (self,)
        replicates = range(FIRST_SELECTION_REPLICATE, FIRST_SELECTION_REPLICATE + self.selection_replicates)
        return tuple(replace(self, replicate=replicate) for replicate in replicates)

    def with_arm(self, name: str) -> Cell:
        """The cell of another arm of the same pair and replicate."""
        arm = self.arms[name]
        return replace(self, arm=name, recipe=arm.recipe, search=arm.search)

    def with_search(self, search: Recipe, *, anchor: Anchor = 0, stop: int | None = None) -> Cell:
        """This cell with another mask search."""
        return replace(self, search=search, search_anchor=anchor, search_stop=stop)

    def iterations(self, steps: Steps, recipe: Recipe | None = None) -> int:
        """A point of training, or its length, in iterations; shares are of the recipe's own length."""
        return (recipe or self.recipe).iterations(steps, num_train_images(self.data))

    def steps_per_epoch(self, recipe: Recipe | None = None) -> int:
        """Iterations in an epoch of this cell's data."""
        return (recipe or self.recipe).steps_per_epoch(num_train_images(self.data))

    def train(
        self,
        *,
        recipe: Recipe | None = None,
        start: tuple[Task, int | None] | None = None,
        begin: int | None = None,
        mask: Task | None = None,
        data: DataSpec | None = None,
        **fields: Any,
    ) -> Task:
        """A training of this cell: from the initialisation, or from `start` = (training, step; None is its end).

        It begins at the iteration `begin`, which is the start's step unless given. Step 0 of a training from
        initialisation is the initialisation itself, so both have one key.
        """
        if start is not None and start[1] == 0 and isinstance(start[0].spec, TrainSpec) and not start[0].spec.start:
            start = None
        recipe = recipe or self.recipe
        begin = begin if begin is not None else (start[1] or 0) if start else 0
        if begin and begin >= self.iterations(recipe.steps, recipe):
            raise ValueError(f"a training of {recipe.steps} cannot begin at iteration {begin}; name an earlier step")
        spec = TrainSpec(
            model=self.model,
            data=data or self.data,
            recipe=recipe,
            seed=self.replicate,
            start=Weights(task=start[0].key, step=start[1]) if start else None,
            begin=begin,
            mask=mask.key if mask else None,
            **fields,
        )
        return Task(spec, tuple(dict.fromkeys(t for t in (start and start[0], mask) if t is not None)))

    def dense(self) -> Task:
        """The dense network of this cell: level 0."""
        return self.train()

    def ticket(self, level: int, rewind: int = 0) -> Task:
        """The ticket of a level, trained: the searched mask on the weights of iteration `rewind`."""
        if level == 0:
            return self.dense()
        return self.train(start=self.spawn(rewind), mask=self.mask(level, rewind), noise=level)

    def spawn(self, step: int) -> tuple[Task, int] | None:
        """The start at an iteration of the dense training; None for the initialisation."""
        return (self.dense(), step) if step else None

    def mask(self, level: int, rewind: int = 0) -> Task | None:
        """The mask of a level, found by iterative magnitude pruning with rewinding (None at level 0).

        Source: Frankle et al. 2020 (arXiv 1912.05671), algorithm 2.
        """
        for below in range(level):  # not by recursion: chains may be long
            if (below + 1, rewind) not in self._masks:
                prior = self._masks.get((below, rewind))
                self._masks[below + 1, rewind] = self.next_mask(self.searched(below, rewind), prior, below + 1)
        return self._masks.get((level, rewind))

    def next_mask(self, network: Task, prior: Task | None, level: int, **fields: Any) -> Task:
        """The mask of `level` from a trained network and the mask that held in its training."""
        spec = MaskSpec(
            network=Weights(task=network.key),
            prior=prior.key if prior else None,
            level=level,
            # One place in the key for the criterion, so that equal masks have equal keys.
            pruning=self.pruning.model_copy(update={"criterion": "magnitude"}),
            **{"criterion": self.pruning.criterion, **fields},
        )
        return Task(spec, tuple(t for t in (network, prior) if t is not None))

    def imitated_mask(self, criterion: Literal["random", "shuffled"], searched: Task, level: int) -> Task:
        """A random or shuffled mask that imitates a searched one."""
        spec = MaskSpec(criterion=criterion, like=searched.key, level=level, seed=self.replicate, draw=level)
        return Task(spec, (searched,))

    def line(
        self, a: Task, b: Task, *, statistics: Literal["interpolate", "recompute"] = "interpolate", **options: Any
    ) -> Task:
        """The linear path between the ends of two trainings; a single task for both rules if there are no batch
        statistics."""
        spec = InterpolateSpec(
            model=self.model,
            data=self.data,
            a=Weights(task=a.key),
            b=Weights(task=b.key),
            statistics=statistics if self.model.has_batchnorm(self.data.info) else "interpolate",
            **options,
        )
        return Task(spec, (a, b))

    def searched(self, level: int, rewind: int = 0) -> Task:
        """The network of a level of the mask search; that of level 0, the dense one, gives the first mask."""
        fields: dict[str, Any] = {"anchor": self.search_anchor, "stop": self.search_stop, "recipe": self.search}
        if level == 0:
            return self.train(**fields)
        return self.train(start=self.spawn(rewind), mask=self.mask(level, rewind), noise=level, **fields)
