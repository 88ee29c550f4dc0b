"""Paired differences of points of training that are known only to lie in intervals: onsets between two steps of a grid.

Each is placed at the middle of its interval. If it is uniform within it, the difference of two has the variance (a^2 +
b^2) / 12 for interval lengths a, b in addition to that over replicates; the sum is the squared error of Student's t. So
replicates whose onsets lie between the same two steps do not have a spread of 0, which would allow any p.

Simulated on the grid 0, .25, .5, 1 ... 32 % of training, one-sided at 5 %, with onsets of both arms from one
distribution: log-uniform over the grid, log-normal (sigma .7, around 3 %), at 0 or 12 % by chance, uniform up to 30 %;
and with power for log-normal onsets (sigma .5) around .5 and 3 %, and around 1 and 8 %:

    n     null                       power
    3     .010  .017  .016  .027     .51  .58
    5     .016  .026  .049  .028     .94  .96
    10    .032  .038  .041  .034     1    1
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lthbench.analysis.stats.paired import Paired

Interval = tuple[float, float]


def paired_intervals(first: Sequence[Interval], second: Sequence[Interval]) -> Paired | None:
    """The differences of the first from the second, one per replicate, of points in intervals (low, high].

    None with fewer than two replicates, and where neither differences nor intervals leave any spread, so that no test
    exists.
    """
    if len(first) < 2:
        return None
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    differences = a.mean(axis=1) - b.mean(axis=1)
    within = (np.ptp(a, axis=1) ** 2 + np.ptp(b, axis=1) ** 2) / 12
    spread = math.sqrt(float(differences.var(ddof=1) + within.mean()))
    # Rounding alone makes equal differences differ in their last bits.
    if spread <= 1e-12:
        return None
    return Paired(float(differences.mean()), spread, len(differences))


def possible(first: Sequence[Interval], second: Sequence[Interval]) -> Interval:
    """The smallest and the largest mean difference that the intervals allow."""
    low = sum(a[0] - b[1] for a, b in zip(first, second, strict=True)) / len(first)
    high = sum(a[1] - b[0] for a, b in zip(first, second, strict=True)) / len(first)
    return low, high
