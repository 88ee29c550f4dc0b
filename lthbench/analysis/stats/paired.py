"""Tests of one effect from paired differences, one per replicate: Student's t, equivalence, Wilcoxon; power and n."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, overload

import numpy as np
from scipy import special

POWER = 0.8
# More are never advised: the spread of a few replicates does not predict that of many.
MAX_REPLICATES = 50
Direction = Literal["greater", "less"]


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences with its spread; positive differences are what a claim expects.

    Attributes:
        spread: standard deviation over replicates.
    """

    mean: float
    spread: float
    n: int

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return self.spread / math.sqrt(self.n)

    def p_above(self, bound: float) -> float:
        """One-sided p of the hypothesis that the true mean is at most `bound`."""
        return float(special.stdtr(self.n - 1, (bound - self.mean) / self.error))

    def p_below(self, bound: float) -> float:
        """One-sided p of the hypothesis that the true mean is at least `bound`."""
        return float(special.stdtr(self.n - 1, (self.mean - bound) / self.error))

    def interval(self, alpha: float) -> tuple[float, float]:
        """The interval at 1 - 2 alpha: the true mean lies below it, and above it, with probability alpha each."""
        half = half_width(self.spread, self.n, alpha)
        return self.mean - half, self.mean + half


def half_width(spread: float, n: int, alpha: float) -> float:
    """Of the interval at 1 - 2 alpha of n values with this spread."""
    return float(special.stdtrit(n - 1, 1 - alpha)) * spread / math.sqrt(n)


def paired(differences: Sequence[float]) -> Paired | None:
    """Mean and spread of differences; None where they do not vary, or are fewer than two, so that no test exists."""
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    spread = float(values.std(ddof=1))
    # Rounding alone makes equal differences differ in their last bits.
    if spread <= 1e-12 * max(1.0, float(np.abs(values).max())):
        return None
    return Paired(float(values.mean()), spread, len(values))


def wilcoxon(differences: Sequence[float], than: float, direction: Direction) -> float | None:
    """One-sided p of Wilcoxon's signed-rank test; None where every difference equals `than`."""
    from scipy import stats

    shifted = np.asarray(differences, dtype=float) - than
    if not np.any(shifted):
        return None
    return float(stats.wilcoxon(shifted, alternative=direction).pvalue)


def power_one_sided(gap: float, spread: float, n: int, alpha: float) -> float:
    """Power of the one-sided t test where the true mean is `gap` beyond the bound (non-central t)."""
    if n < 2:
        return 0.0
    return float(1 - special.nctdtr(n - 1, gap / spread * math.sqrt(n), special.stdtrit(n - 1, 1 - alpha)))


def power_equivalence(margin: float, spread: float, n: int, alpha: float) -> float:
    """Power of two one-sided t tests where the true mean is 0 (Phillips 1990, by two non-central t)."""
    if n < 2:
        return 0.0
    critical, shift = special.stdtrit(n - 1, 1 - alpha), margin / spread * math.sqrt(n)
    return float(max(0.0, special.nctdtr(n - 1, -shift, -critical) - special.nctdtr(n - 1, shift, critical)))


def detectable(power: Callable[[float], float], start: float) -> float | None:
    """The smallest effect whose power is 80 %, to three digits, searched upwards from `start` > 0."""
    high = start
    for _ in range(60):
        if power(high) >= POWER:
            break
        high *= 2
    else:
        return None
    low = 0.0
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


@overload
def holm(p_values: Sequence[float], family: int | None = None) -> list[float]: ...
@overload
def holm(p_values: Sequence[float | None], family: int | None = None) -> list[float | None]: ...
def holm(p_values: Sequence[float | None], family: int | None = None) -> list[float] | list[float | None]:
    """Holm's adjusted p values (Holm 1979): rejecting those under a level errs at most so often in the whole family.

    Members of the family without a p yet (None) count as 1.
    """
    size = family or len(p_values)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (size - rank) * p))
        adjusted[i] = largest
    return adjusted


def exact_fraction(successes: int, n: int, alpha: float) -> tuple[float, float]:
    """The interval of Clopper and Pearson (1934) for a fraction."""
    from scipy import stats

    interval = stats.binomtest(successes, n).proportion_ci(1 - alpha, method="exact")
    return float(interval.low), float(interval.high)
