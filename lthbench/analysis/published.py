"""Whether our runs agree with numbers that other papers publish; none of these numbers is our own."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lthbench.analysis.stats.paired import holm
from lthbench.analysis.table import results_table
from lthbench.data.spec import num_train_images
from lthbench.suite.plan import Plan
from lthbench.suite.validation_errors import explain
from lthbench.suite.yaml_tree import SuiteError, read_yaml
from lthbench.tasks.store import Store
from lthbench.training.steps import Steps

# How often at least one row would differ if our runs were draws from what is published.
LEVEL = 0.05

State = Literal["agrees", "differs", "not run"]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Strict):
    """Where numbers are from, and whether they passed peer review."""

    cite: str
    peer_reviewed: bool


class PublishedRow(_Strict):
    """Published numbers of one arm, by pruning level.

    Attributes:
        source: a key of `sources`.
        pair, arm, variant, step, metric: of the rows of our results table that they are compared with.
        n: runs behind each number; None where that is not published.
        values: level -> mean, or (mean, standard deviation); accuracies in percent, onsets in iterations.
        differs: how their setting differs from ours.
    """

    source: str
    pair: str
    arm: str
    variant: str
    metric: Literal["test_accuracy", "onset"]
    values: dict[Annotated[int, Field(ge=0)], Number | tuple[Number, Annotated[float, Field(gt=0)]]]
    step: Steps = Steps()
    n: Annotated[int, Field(ge=1)] | None = None
    differs: str = ""

    @model_validator(mode="after")
    def _spread_has_a_number_of_runs(self) -> PublishedRow:
        if any(isinstance(value, tuple) for value in self.values.values()) and (self.n or 0) < 2:
            raise ValueError("a standard deviation needs n of at least 2")
        return self


class References(_Strict):
    """All published numbers, with their sources."""

    sources: dict[str, Source]
    rows: list[PublishedRow]

    @model_validator(mode="after")
    def _sources_are_there(self) -> References:
        for row in self.rows:
            if row.source not in self.sources:
                raise ValueError(f"no source is called '{row.source}'; known: {', '.join(self.sources)}")
        return self


def read_references(path: Path) -> References:
    """Read and validate a file of published numbers.

    Raises:
        SuiteError: with one line per fault.
    """
    tree = read_yaml(path)
    try:
        return References.model_validate(tree.plain())
    except ValidationError as error:
        raise SuiteError("\n".join(explain(error, tree, (), References))) from error


@dataclass(frozen=True)
class PublishedComparison:
    """One published number beside ours.

    Attributes:
        state: `agrees`, `differs`, or `not run`, with the reason.
        mean, deviation, n: as published, in percent or iterations; None where they are not.
        our_mean, our_deviation, our_n: over replicates, in the same unit.
        low, high: the 95 % interval of ours minus theirs; of an onset, the interval in which ours lies.
        p: of Welch's t test, after Holm over all rows; None for onsets.
    """

    source: Source
    row: PublishedRow
    level: int
    state: State
    reason: str
    mean: float
    deviation: float | None
    n: int | None
    our_mean: float | None = None
    our_deviation: float | None = None
    our_n: int = 0
    low: float | None = None
    high: float | None = None
    p: float | None = None


def calibrate(plan: Plan, store: Store, references: References) -> list[PublishedComparison]:
    """Compare our results with published numbers: by Welch's t test, or for onsets by whether ours enclose theirs."""
    measured: dict[tuple[object, ...], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for r in (row for row in results_table(plan, store) if not row.is_selection):
        measured[r.pair, r.arm, r.variant, r.level, r.step or 0, r.metric][r.replicate].append(r.value)

    def ours(row: PublishedRow, level: int, metric: str) -> list[float]:
        """One value per replicate."""
        by_replicate = measured.get((row.pair, row.arm, row.variant, level, _iterations(plan, row), metric), {})
        return [math.fsum(values) / len(values) for values in by_replicate.values()]

    found = []
    for row in references.rows:
        for level, value in row.values.items():
            mean, deviation = value if isinstance(value, tuple) else (value, None)
            published = PublishedComparison(
                references.sources[row.source], row, level, "not run", "", mean, deviation, row.n
            )
            if row.pair not in plan.suite.pairs or row.arm not in plan.suite.pairs[row.pair].arms:
                found.append(replace(published, reason="not in the suite"))
            elif row.metric == "onset":
                found.append(_onset(published, ours(row, level, "onset_above"), ours(row, level, "onset")))
            else:
                found.append(_mean(published, [100 * v for v in ours(row, level, row.metric)]))
    tested = [(index, c.p) for index, c in enumerate(found) if c.p is not None]
    for (index, _), p in zip(tested, holm([p for _, p in tested]), strict=True):
        state: State = "differs" if p < LEVEL else "agrees"
        found[index] = replace(found[index], state=state, p=p)
    return found


def _iterations(plan: Plan, row: PublishedRow) -> int:
    pair = plan.suite.pairs[row.pair]
    return pair.arms[row.arm].recipe.iterations(row.step, num_train_images(pair.data))


def _mean(published: PublishedComparison, values: list[float]) -> PublishedComparison:
    """Welch's t test of two means; a published number without a spread is one value that ours may include."""
    from scipy import stats

    if len(values) < 2:
        return replace(published, reason=f"{len(values)} of 2 replicates", our_n=len(values))
    mean, deviation, n = statistics.fmean(values), statistics.stdev(values), len(values)
    spreads = [(deviation, n)]
    if published.deviation is not None and published.n is not None:
        spreads.append((published.deviation, published.n))
    errors = [(d**2 / m, m - 1) for d, m in spreads]
    squared = sum(error for error, _ in errors)
    # Welch and Satterthwaite's degrees of freedom; with one spread, Student's.
    degrees = squared**2 / sum(error**2 / d for error, d in errors) if squared else 1.0
    difference, error = mean - published.mean, math.sqrt(squared)
    width = float(stats.t.isf(LEVEL / 2, degrees)) * error
    p = 2 * float(stats.t.sf(abs(difference) / error, degrees)) if error else float(difference == 0)
    return replace(
        published, our_mean=mean, our_deviation=deviation, our_n=n, low=difference - width, high=difference + width, p=p
    )


def _onset(published: PublishedComparison, above: list[float], at_most: list[float]) -> PublishedComparison:
    """Whether the published onset lies within the steps between which ours lie."""
    if not above:
        return replace(published, reason="no onset")
    low, high = min(above), max(at_most) if len(at_most) == len(above) else math.inf
    state: State = "agrees" if low < published.mean <= high else "differs"
    return replace(published, state=state, our_n=len(above), low=low, high=high)
