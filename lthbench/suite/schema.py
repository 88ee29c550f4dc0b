"""`Suite`: a validated suite, after includes, `extends` and merging."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, StringConstraints

from lthbench.data.spec import DataSpec
from lthbench.experiments import Arm, Cell, Experiment
from lthbench.experiments.cell import Result
from lthbench.models.spec import ModelSpec
from lthbench.tasks.spec import Pruning, Task

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


class Pair(BaseModel):
    """A model on a data set, the arms compared on it, and the experiments made with each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec
    data: DataSpec
    pruning: Pruning = Pruning()
    arms: Annotated[dict[Name, Arm], Field(min_length=1)]
    experiments: Annotated[dict[Name, SerializeAsAny[Experiment]], Field(min_length=1)]


class Suite(BaseModel):
    """What `lthbench run` runs: pairs, their arms and experiments, and how many replicates of each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    replicates: Annotated[int, Field(ge=1)]
    pairs: Annotated[dict[Name, Pair], Field(min_length=1)]

    def cells(self, result_of: Callable[[Task], Result | None] = lambda task: None) -> Iterator[Cell]:
        """Every pair, arm and replicate, replicates outermost: an interrupted run has whole replicates."""
        for replicate in range(self.replicates):
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
                    )
