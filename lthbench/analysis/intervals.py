"""Comparing times that are known only to lie in intervals: onsets from a grid of steps, times not yet reached.

The scores are those of the generalised log-rank test (Sun 1996): with the pooled distribution estimated without
assumption (Turnbull 1976), a subject's score says how much earlier than the pool's its time is. Scores are then
permuted between the groups (Fay & Shaw 2010, Journal of Statistical Software 36), which is exact in small samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

MAX_EXACT = 20_000
DRAWS = 9_999
_SEED = 20200105  # any; fixed, so that the same numbers give the same verdict

Interval = tuple[float, float]


def turnbull(intervals: Sequence[Interval]) -> tuple[list[Interval], NDArray[np.float64], NDArray[np.bool_]]:
    """The self-consistent estimate of the distribution of times in intervals (low, high].

    Returns:
        The innermost intervals that can have mass, ascending; their masses; and (subject, interval) whether the
        subject's interval has the innermost one in it.
    """
    lows = sorted({low for low, _ in intervals})
    highs = sorted({high for _, high in intervals})
    marks = sorted([(low, 1) for low in lows] + [(high, 0) for high in highs])
    # A right end before a left end at the same point: intervals are open on the left, closed on the right.
    inner = [(a[0], b[0]) for a, b in pairwise(marks) if a[1] == 1 and b[1] == 0]
    holds = np.array([[low <= a and b <= high for a, b in inner] for low, high in intervals])
    mass = np.full(len(inner), 1 / len(inner))
    for _ in range(10_000):
        share = holds * mass
        share /= share.sum(axis=1, keepdims=True)
        new = share.mean(axis=0)
        if np.abs(new - mass).max() < 1e-10:
            break
        mass = new
    return inner, mass, holds


def log_rank_scores(intervals: Sequence[Interval]) -> NDArray[np.float64]:
    """A score a subject, larger for an earlier time; they sum to 0.

    With S the pooled survival and H its Nelson-Aalen hazard at the ends l, r of an interval, the score is
    (S(r) H(r) - S(l) H(l)) / (S(l) - S(r)); of exact times that is the log-rank score, 1 - H, and -H of censored ones.
    """
    _, mass, holds = turnbull(intervals)
    alive = np.concatenate([[1.0], 1 - np.cumsum(mass)]).clip(0, 1)  # at the ends of the inner intervals
    steps = np.divide(mass, alive[:-1], out=np.zeros_like(mass), where=alive[:-1] > 1e-9)
    hazard = np.concatenate([[0.0], np.cumsum(steps)])
    weighted = np.where(alive > 1e-9, alive * hazard, 0.0)
    scores = []
    for row in holds:
        inside = np.flatnonzero(row)
        first, last = inside[0], inside[-1] + 1
        scores.append((weighted[last] - weighted[first]) / (alive[first] - alive[last]))
    values = np.asarray(scores)
    return np.asarray(values - values.mean())


def earlier_p(group: Sequence[Interval], other: Sequence[Interval]) -> tuple[float, float, float]:
    """Permutation test of whether times of one group come earlier.

    Returns:
        One-sided p that they come earlier, that they come later, and the standardised statistic.
    """
    scores = log_rank_scores([*group, *other])
    n, total = len(group), len(scores)
    observed = float(scores[:n].sum())
    variance = float((scores**2).sum()) * n * (total - n) / (total * (total - 1))
    if variance <= 1e-20:
        return 1.0, 1.0, 0.0
    if math.comb(total, n) <= MAX_EXACT:
        sums = np.array([scores[list(pick)].sum() for pick in combinations(range(total), n)])
        early, late = np.mean(sums >= observed - 1e-9), np.mean(sums <= observed + 1e-9)
    else:
        random = np.random.default_rng(_SEED)
        sums = np.array([scores[random.permutation(total)[:n]].sum() for _ in range(DRAWS)])
        early = (1 + np.sum(sums >= observed - 1e-9)) / (1 + DRAWS)
        late = (1 + np.sum(sums <= observed + 1e-9)) / (1 + DRAWS)
    return float(early), float(late), observed / math.sqrt(variance)
