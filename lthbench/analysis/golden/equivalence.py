"""Whether results in a new environment are one more draw from what sound environments give.

Rounding differs between environments, and training amplifies it: by little in a few steps, up to what another data
order would change in many. So the tolerance is measured, quantity by quantity. Let y_se be the recorded value of
replicate s in environment e (of m), and x_s the new one of the same replicate.

With m >= 2, the spread between environments is v = sum (y_se - y_s.)^2 / (r (m - 1)), and under the null
sum (x_s - y_s.)^2 / r / ((1 + 1/m) v) follows F(r, r (m - 1)). With one environment the spread between replicates
stands for it, and the means are compared: (x. - y.)^2 / (2 v / r) follows F(1, r - 1), or less where the
replicates share their seeds. In either case v is moderated: where there are many quantities of a kind, their spreads
inform each other (Smyth 2004, doi:10.2202/1544-6115.1027), since a spread of few values may be small by luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

# Differences of this share of the spread over seeds decide no claim, so no spread is taken to be smaller. The spread
# over seeds is known from a few values only, so it is at least the common one for quantities of the kind.
NEGLIGIBLE = 0.05
# A prior is fitted to at least so many spreads.
ENOUGH = 10


@dataclass(frozen=True)
class Sample:
    """One quantity of the same task in several replicates.

    Attributes:
        recorded: [r, m], replicate by environment.
        found: [r], the new values of the same replicates.
        resolution: the smallest step of the quantity, as one image of an accuracy.
    """

    recorded: np.ndarray
    found: np.ndarray
    resolution: float = 0.0


@dataclass(frozen=True)
class Agreement:
    """The test's outcome for one quantity.

    Attributes:
        p: the probability that sound environments differ as much.
        tolerance: the root mean square difference from the recorded means at which p is the level of one of all
            quantities tested; None where no spread could be measured.
    """

    p: float
    tolerance: float | None


def agreement(samples: Sequence[Sample], level: float) -> list[Agreement]:
    """Test quantities of one kind and scale together.

    Args:
        level: the level of a single test, for which tolerances are given.
    """
    seeds = [float(s.recorded.mean(1).var(ddof=1)) if len(s.found) > 1 else 0.0 for s in samples]
    common = float(np.median(seeds)) if seeds else 0.0
    measured = [_spread(sample, own, common) for sample, own in zip(samples, seeds, strict=True)]
    known = [spread for spread in measured if spread is not None]
    prior_degrees, prior = _prior([s.variance for s in known], [s.degrees for s in known])
    verdicts = []
    for sample, spread in zip(samples, measured, strict=True):
        if spread is None:
            verdicts.append(Agreement(1.0, None))
            continue
        degrees = spread.degrees + prior_degrees
        variance = (spread.degrees * spread.variance + (prior_degrees * prior if prior_degrees else 0)) / degrees
        scale = variance * spread.factor
        off = sample.found - sample.recorded.mean(1)
        gap = float(np.mean(off**2)) if spread.paired else float(np.mean(off)) ** 2
        ratio = gap / scale if scale else (math.inf if gap else 0.0)
        first = len(sample.found) if spread.paired else 1
        quantile = float(special.fdtri(first, degrees, 1 - level))
        verdicts.append(Agreement(float(special.fdtrc(first, degrees, ratio)), math.sqrt(quantile * scale)))
    return verdicts


@dataclass(frozen=True)
class _Spread:
    """The variance of one value, its degrees of freedom, and how much larger that of the compared gap is."""

    variance: float
    degrees: int
    factor: float
    paired: bool


def _spread(sample: Sample, between_replicates: float, common: float) -> _Spread | None:
    replicates, environments = sample.recorded.shape
    least = sample.resolution**2
    if environments > 1:
        degrees = replicates * (environments - 1)
        variance = float(((sample.recorded - sample.recorded.mean(1, keepdims=True)) ** 2).sum()) / degrees
        least += NEGLIGIBLE**2 * max(between_replicates, common)
        return _Spread(max(variance, least), degrees, 1 + 1 / environments, True)
    if replicates > 1:
        return _Spread(max(between_replicates, least), replicates - 1, 2 / replicates, False)
    return None


def _prior(variances: Sequence[float], degrees: Sequence[int]) -> tuple[float, float]:
    """Degrees of freedom and variance that the spreads have in common: Smyth 2004, section 6.2.

    Returns:
        (0, 0) where they are too few; both finite.
    """
    positive = [(v, d) for v, d in zip(variances, degrees, strict=True) if v > 0]
    if len(positive) < ENOUGH:
        return 0.0, 0.0
    v, d = np.array(positive).T
    e = np.log(v) - special.digamma(d / 2) + np.log(d / 2)
    excess = float(e.var(ddof=1) - special.polygamma(1, d / 2).mean())
    largest = 1e6
    if excess <= special.polygamma(1, largest / 2):
        return largest, float(math.exp(e.mean()))
    half = optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-6, largest / 2)
    return 2 * half, float(math.exp(e.mean() + special.digamma(half) - math.log(half)))
