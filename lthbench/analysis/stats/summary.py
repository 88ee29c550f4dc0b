"""Statistics over replicates, the unit of replication."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit


@dataclass(frozen=True)
class Interval:
    """A mean with the half width of its confidence interval; the half width of one value is unknown (None)."""

    mean: float
    half_width: float | None
    n: int


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of independent values and Student's t interval around it."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Interval(mean, None, n)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    quantile = float(stdtrit(n - 1, 0.5 + confidence / 2))
    return Interval(mean, quantile * deviation / math.sqrt(n), n)
