"""`Measured`: the results of one pair, as figures need them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lthbench.analysis.figures.style import Look, look
from lthbench.analysis.table import ResultRow, Summary
from lthbench.experiments.experiment import Experiment
from lthbench.suite.schema import Pair

E = TypeVar("E", bound=Experiment)


@dataclass(frozen=True)
class Measured:
    """The numbers of one pair.

    Attributes:
        rows, summaries: of this pair alone.
        result_of: key -> the whole result of a task that is done.
    """

    name: str
    pair: Pair
    rows: list[ResultRow]
    summaries: list[Summary]
    result_of: Callable[[str], Mapping[str, Any]]

    def made(self, kind: type[E]) -> Iterator[tuple[str, E]]:
        """The experiments of exactly this kind that have results, by their labels in the suite."""
        measured = {s.experiment for s in self.summaries}
        for label, experiment in self.pair.experiments.items():
            if type(experiment) is kind and label in measured:
                yield label, experiment

    def of(self, label: str, metric: str, arm: str | None = None) -> list[Summary]:
        """The summaries of one metric of an experiment, of one arm or of all."""
        return [
            s for s in self.summaries if s.experiment == label and s.metric == metric and (arm is None or s.arm == arm)
        ]

    def arms(self, label: str) -> list[str]:
        """The arms with results of an experiment, in the suite's order."""
        found = {s.arm for s in self.summaries if s.experiment == label}
        return [arm for arm in self.pair.arms if arm in found]

    def look(self, arm: str) -> Look:
        """The look of an arm, the same in all figures of the pair."""
        return look(list(self.pair.arms).index(arm))
