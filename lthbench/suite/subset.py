"""`Subset`: which of a suite's pairs, arms, experiments, replicates and levels are planned."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from lthbench.experiments import Cell, Experiment, Measurement
from lthbench.options import Option, words
from lthbench.suite.schema import Suite
from lthbench.suite.yaml_tree import SuiteError


@dataclass(frozen=True)
class Subset:
    """A part of a suite; tasks that it needs of the rest (another arm's mask, a lower level) are planned with it.

    Attributes:
        experiments, pairs, arms: by name; empty is all of them.
        replicates: the first so many of those that are tested; None is all of them. Selection replicates stay.
        levels: nothing is measured above this pruning level; None is no limit.
    """

    experiments: Annotated[tuple[str, ...], Option("Only this experiment (may be repeated).", "--only")] = ()
    pairs: Annotated[tuple[str, ...], Option("Only this pair (may be repeated).", "--pair")] = ()
    arms: Annotated[tuple[str, ...], Option("Only this arm (may be repeated).", "--arm")] = ()
    replicates: Annotated[int | None, Option("Only the first N replicates.", "--replicates", min=1)] = None
    levels: Annotated[int | None, Option("Measure nothing above this pruning level.", "--levels", min=0)] = None

    def check(self, suite: Suite) -> None:
        """Refuse names that the suite does not have.

        Raises:
            SuiteError: the message names the option and what there is.
        """
        pairs = suite.pairs
        _known(
            "experiment", "--only", self.experiments, {label for pair in pairs.values() for label in pair.experiments}
        )
        _known("pair", "--pair", self.pairs, pairs)
        chosen = [pairs[name] for name in self.pairs or pairs]
        _known("arm", "--arm", self.arms, {name for pair in chosen for name in pair.arms})
        if self.replicates is not None and not 1 <= self.replicates <= suite.replicates:
            raise SuiteError(
                f"--replicates {self.replicates}: the suite has {suite.replicates}; give 1 to {suite.replicates}, "
                "or raise `replicates` in its file"
            )

        deepest = max((_deepest(e) for pair in chosen for label, e in pair.experiments.items()
                       if not self.experiments or label in self.experiments), default=0)  # fmt: skip
        if self.levels is not None and self.levels > deepest:
            raise SuiteError(
                f"--levels {self.levels}: nothing of it is pruned more than {deepest} times; give 0 to {deepest}, or "
                "raise `levels` in the suite"
            )

    def has_cell(self, cell: Cell) -> bool:
        """Whether a cell of the part's replicates belongs to it."""
        return (not self.pairs or cell.pair in self.pairs) and (not self.arms or cell.arm in self.arms)

    def has_experiment(self, label: str, experiment: Experiment, cell: Cell) -> bool:
        """Whether an experiment of a cell does."""
        return (not self.experiments or label in self.experiments) and (
            experiment.arms is None or cell.arm in experiment.arms
        )

    def has_measurement(self, measurement: Measurement) -> bool:
        """Whether a measurement does."""
        return self.levels is None or measurement.level is None or measurement.level <= self.levels

    def options(self) -> list[str]:
        """The options of `lthbench run` and `plan` that name this part."""
        return words(self)


WHOLE = Subset()


def _deepest(experiment: Experiment) -> int:
    """The highest pruning level that an experiment measures."""
    levels = getattr(experiment, "levels", 0)
    return max(levels, default=0) if isinstance(levels, tuple) else levels


def _known(kind: str, option: str, names: Iterable[str], there: Iterable[str]) -> None:
    there = sorted(there)
    for name in names:
        if name not in there:
            raise SuiteError(f"{option} {name}: no {kind} of the suite is called so; known: {', '.join(there)}")
