"""Two arms, or two pairs, of a suite side by side: each measured number of the one minus the other's, by replicate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lthbench.analysis.stats.paired import paired
from lthbench.analysis.table import ResultRow

ALPHA = 0.025  # at each end of the interval


@dataclass(frozen=True)
class SideBySide:
    """One metric of one point, of A and of B, over the replicates that both have.

    Attributes:
        where: what both are of: the pair whose arms are compared, or the arm whose pairs are.
        density: in A and in B; None for a line between two networks.
        share: of training where weights were rewound to or children spawned: points of trainings of unequal length are
            compared by it.
        effect: the mean of A minus B, in the metric's own unit (accuracies are fractions).
        low, high: its 95 % interval by Student's t from the differences of replicates; None with one replicate, or
            where they do not vary.
        n: replicates.
    """

    where: str
    experiment: str
    variant: str
    level: int | None
    density: tuple[float | None, float | None]
    share: float | None
    metric: str
    mean_a: float
    mean_b: float
    effect: float
    low: float | None
    high: float | None
    n: int


def arms_side_by_side(rows: Iterable[ResultRow], a: str, b: str) -> list[SideBySide]:
    """Two arms of each pair that has both."""
    return _side_by_side(rows, a, b, lambda row: row.arm, lambda row: row.pair)


def pairs_side_by_side(rows: Iterable[ResultRow], a: str, b: str) -> list[SideBySide]:
    """Two pairs, each arm with the other's of its name; replicates are paired by their number."""
    return _side_by_side(rows, a, b, lambda row: row.pair, lambda row: row.arm)


def _side_by_side(
    rows: Iterable[ResultRow], a: str, b: str, side: Callable[[ResultRow], str], where: Callable[[ResultRow], str]
) -> list[SideBySide]:
    found: dict[tuple[str, str, str, int | None, float | None, str], dict[str, list[ResultRow]]] = {}
    for row in rows:
        if side(row) in (a, b) and not row.is_selection:
            share = None if row.share is None else round(row.share, 6)
            point = where(row), row.experiment, row.variant, row.level, share, row.metric
            found.setdefault(point, {}).setdefault(side(row), []).append(row)
    return [
        _contrast(*point, of[a], of[b])
        for point, of in found.items()
        if a in of and b in of and {row.replicate for row in of[a]} & {row.replicate for row in of[b]}
    ]


def _contrast(
    where: str,
    experiment: str,
    variant: str,
    level: int | None,
    share: float | None,
    metric: str,
    of_a: list[ResultRow],
    of_b: list[ResultRow],
) -> SideBySide:
    values_a, values_b = _by_replicate(of_a), _by_replicate(of_b)
    replicates = [replicate for replicate in values_a if replicate in values_b]
    differences = [values_a[replicate] - values_b[replicate] for replicate in replicates]
    tested = paired(differences)
    low, high = tested.interval(ALPHA) if tested is not None else (None, None)
    return SideBySide(
        where,
        experiment,
        variant,
        level,
        (of_a[0].density, of_b[0].density),
        share,
        metric,
        _mean([values_a[replicate] for replicate in replicates]),
        _mean([values_b[replicate] for replicate in replicates]),
        _mean(differences),
        low,
        high,
        len(replicates),
    )


def _by_replicate(rows: list[ResultRow]) -> dict[int, float]:
    """Several values of one replicate (pairs of children, draws of images) count once."""
    values: dict[int, list[float]] = {}
    for row in rows:
        values.setdefault(row.replicate, []).append(row.value)
    return {replicate: _mean(its) for replicate, its in values.items()}


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
