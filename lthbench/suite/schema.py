"""`Suite`: a validated suite, after includes, `extends` and merging."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SerializeAsAny, field_validator

from lthbench.data.spec import DataSpec
from lthbench.experiments import Arm, Cell, Experiment
from lthbench.experiments.cell import FIRST_SELECTION_REPLICATE, Result
from lthbench.experiments.experiment import PrunedLevels
from lthbench.models.spec import ModelSpec
from lthbench.suite.claims import Claim
from lthbench.suite.slurm_options import SlurmOptions
from lthbench.tasks.spec import Pruning, Task
from lthbench.training.recipe import Engine, Recipe

MAX_REPLICATES = 1000


def _is_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", text):
        raise ValueError(f"'{text}' is not a name; use letters, digits and . _ + -, the first a letter or digit")
    return text


Name = Annotated[str, AfterValidator(_is_name)]


class Pair(BaseModel):
    """A model on a data set, the arms compared on it, and the experiments made with each.

    Attributes:
        model: what is trained.
        data: the images it is trained on.
        pruning: how its mask searches prune.
        claim_levels: named sets of levels at which claims are tested, fixed in advance: `range`, where tickets are
            distinguished from other sparse networks; its parts `third` and `fifth`, where at most .33 and .21 of the
            weights are left; and `extreme`. A set that a pair does not give has the default; its own range also
            replaces the parts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    data: DataSpec
    pruning: Pruning = Pruning()
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    experiments: Annotated[dict[Name, SerializeAsAny[Experiment]], Field(min_length=1)]
    claim_levels: Annotated[dict[Name, PrunedLevels], Field(validate_default=True)] = {}

    @field_validator("claim_levels")
    @classmethod
    def _with_defaults(cls, value: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        # Densities .41, .33, .21, .134, .107 and .055, .028, .0115 where a level prunes 20 %.
        own = value.get("range")
        parts = {"third": own or (5, 7, 9, 10), "fifth": own or (7, 9, 10)}
        return {"range": (4, 5, 7, 9, 10), **parts, "extreme": (13, 16, 20)} | value

    @property
    def recipes(self) -> list[Recipe]:
        """Every recipe of its arms, of their mask searches too."""
        return [recipe for arm in self.arms.values() for recipe in (arm.recipe, arm.search)]


class Suite(BaseModel):
    """What `lthbench run` runs: pairs, their arms and experiments, and how many replicates of each.

    Attributes:
        replicates: those that are tested.
        first_replicate: the number of the first of them. A pilot whose numbers no other suite has leaves that suite's
            networks unseen.
        selection_replicates: further ones that only choose (a strength, what a control is matched to, the classes of
            arms), since what is chosen on the networks that are then tested looks better by chance alone.
        claims: what is tested with the results.
        looks: how often verdicts may be taken, for instance with more replicates after an inconclusive one; each look
            gets an equal share of the error rate (Bonferroni).
        slurm: what its jobs ask of a cluster.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    replicates: Annotated[int, Field(ge=1, le=MAX_REPLICATES)]
    first_replicate: Annotated[int, Field(ge=0, le=FIRST_SELECTION_REPLICATE - MAX_REPLICATES)] = 0
    selection_replicates: Annotated[int, Field(ge=0, le=MAX_REPLICATES)] = 0
    pairs: Annotated[dict[Name, Pair], Field(min_length=1)]
    claims: dict[Name, Claim] = {}
    looks: Annotated[int, Field(ge=1)] = 1
    slurm: SlurmOptions = SlurmOptions()

    _other_engine: Engine | None = PrivateAttr(None)

    @property
    def other_engine(self) -> Engine | None:
        """The engine that trains in place of what its recipes name; None where it is they that say."""
        return self._other_engine

    def with_pairs_by(self, engine: Engine, pairs: dict[str, Pair]) -> Suite:
        """The suite with other pairs, whose recipes name another engine; itself if none does."""
        if pairs == self.pairs:
            return self
        suite = self.model_copy(update={"pairs": pairs})
        suite._other_engine = engine
        return suite

    def tested(self, count: int | None = None) -> range:
        """The numbers of the replicates that are tested, or of the first so many."""
        return range(self.first_replicate, self.first_replicate + (count or self.replicates))

    def cells(
        self, result_of: Callable[[Task], Result | None] = lambda task: None, count: int | None = None
    ) -> Iterator[Cell]:
        """Every pair, arm and replicate, replicates outermost: an interrupted run has whole replicates.

        Selection replicates come first: the others need what they choose.

        Args:
            count: only the first so many of the replicates that are tested.
        """
        selection = range(FIRST_SELECTION_REPLICATE, FIRST_SELECTION_REPLICATE + self.selection_replicates)
        for replicate in (*selection, *self.tested(count)):
            for pair_name, pair in self.pairs.items():
                for arm_name, arm in pair.arms.items():
                    yield Cell(
                        pair=pair_name,
                        arm=arm_name,
                        replicate=replicate,
                        model=pair.model,
                        data=pair.data,
                        pruning=pair.pruning,
                        recipe=arm.recipe,
                        search=arm.search,
                        arms=pair.arms,
                        result_of=result_of,
                        selection_replicates=self.selection_replicates,
                    )
