"""The results table: tidy rows, one per measured number, and their summary over replicates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import TYPE_CHECKING

from lthbench.analysis.points import Subject, points
from lthbench.analysis.stats.summary import Interval, mean_interval
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class ResultRow(Subject):
    """One measured number and what it is of.

    Attributes:
        epoch, share: the step in epochs, and as a share of the training's length.
        metric: what the value is; accuracies, errors and barriers are fractions, losses nats.
        key: the task that measured it.
    """

    epoch: float | None
    share: float | None
    metric: str
    value: float
    key: str


def results_table(plan: Plan, store: Store) -> list[ResultRow]:
    """All numbers of a plan that are in the store, in the plan's order; diverged and refused tasks have none."""
    return [
        ResultRow(
            *(p.pair, p.experiment, p.arm, p.replicate, p.variant, p.level, p.density, p.step, p.epoch, p.share),
            *(metric, value, p.key),
        )
        for p in points(plan, store)
        for metric, value in p.numbers.items()
    ]


def frame(rows: Iterable[ResultRow]) -> pandas.DataFrame:
    """The rows as a DataFrame: one column per field, and `is_selection`; what a number does not have is missing."""
    import pandas

    table = pandas.DataFrame(
        [asdict(row) | {"is_selection": row.is_selection} for row in rows],
        columns=[*(field.name for field in fields(ResultRow)), "is_selection"],
    )
    types = {"replicate": "int64", "level": "Int64", "step": "Int64", "is_selection": "bool"}
    numbers = dict.fromkeys(("density", "epoch", "share", "value"), "float64")
    return table.astype(types | numbers)


@dataclass(frozen=True)
class Summary:
    """One metric over the replicates of one point: mean, interval, n, and the tasks that measured it."""

    pair: str
    experiment: str
    arm: str
    variant: str
    level: int | None
    density: float | None
    step: int | None
    epoch: float | None
    share: float | None
    metric: str
    interval: Interval
    keys: tuple[str, ...]


def summarise(rows: Iterable[ResultRow]) -> list[Summary]:
    """Mean, 95 % interval and n over replicates; values of one replicate (several pairs of children) count once.

    Selection replicates are left out.
    """
    rows = [row for row in rows if not row.is_selection]

    def point(row: ResultRow) -> tuple[str, str, str, str, int, int, str]:
        none_first = (-1 if row.level is None else row.level, -1 if row.step is None else row.step)
        return (row.pair, row.experiment, row.arm, row.variant, *none_first, row.metric)

    order = {p: i for i, p in enumerate(dict.fromkeys(point(row) for row in rows))}
    summaries = []
    for _, group in groupby(sorted(rows, key=lambda row: order[point(row)]), key=point):
        members = list(group)
        by_replicate: dict[int, list[float]] = {}
        for row in members:
            by_replicate.setdefault(row.replicate, []).append(row.value)
        values = [math.fsum(v) / len(v) for v in by_replicate.values()]
        row = members[0]
        summaries.append(
            Summary(
                row.pair, row.experiment, row.arm, row.variant, row.level, row.density, row.step, row.epoch, row.share,
                row.metric, mean_interval(values), tuple(dict.fromkeys(member.key for member in members)),
            )
        )  # fmt: skip
    return summaries
