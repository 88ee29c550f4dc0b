"""Rank statistics: correlations over configurations, a trend over doses, agreement of two yes-or-no answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4999
_SEED = 20200105  # any; fixed, so that the same numbers give the same verdict

Method = Literal["spearman", "kendall"]


def correlations(x: NDArray[np.float64], y: NDArray[np.float64], method: Method) -> NDArray[np.float64]:
    """Spearman's rho or Kendall's tau-b of each row of x and y, [draws, n]; NaN where x or y does not vary."""
    if method == "spearman":
        from scipy import stats

        a, b = (stats.rankdata(v, axis=-1) - (v.shape[-1] + 1) / 2 for v in (x, y))
        axis: tuple[int, ...] = (-1,)
    else:
        a, b = (np.sign(v[..., :, None] - v[..., None, :]) for v in (x, y))
        axis = (-2, -1)
    scale = np.sqrt((a * a).sum(axis) * (b * b).sum(axis))
    return np.asarray(np.divide((a * b).sum(axis), scale, out=np.full(len(x), np.nan), where=scale > 0))


def correlation(x: NDArray[np.float64], y: NDArray[np.float64], method: Method) -> float:
    """Spearman's rho or Kendall's tau-b; NaN where x or y does not vary."""
    return float(correlations(x[None], y[None], method)[0])


def permutation_p(x: NDArray[np.float64], y: NDArray[np.float64], method: Method) -> float:
    """One-sided p that a correlation is above 0, over all orders of y up to 7 of them, else over random ones."""
    observed = correlation(x, y, method) - 1e-12
    if len(x) <= 7:
        orders = np.array(list(permutations(range(len(y)))))
        return float(np.mean(correlations(np.broadcast_to(x, orders.shape), y[orders], method) >= observed))
    random = np.random.default_rng(_SEED)
    orders = random.permuted(np.broadcast_to(np.arange(len(y)), (RESAMPLES, len(y))), axis=1)
    drawn = correlations(np.broadcast_to(x, orders.shape), y[orders], method)
    return float((1 + np.sum(drawn >= observed)) / (1 + RESAMPLES))


def bootstrap(x: NDArray[np.float64], y: NDArray[np.float64], method: Method) -> NDArray[np.float64]:
    """Correlations of configurations drawn with replacement; draws without variation are left out."""
    picks = np.random.default_rng(_SEED).integers(len(x), size=(RESAMPLES, len(x)))
    drawn = correlations(x[picks], y[picks], method)
    return drawn[~np.isnan(drawn)]


def page(rows: Sequence[Sequence[float]]) -> float:
    """p of Page's test that values ascend along each row (Page 1963); at least 3 columns."""
    from scipy import stats

    return float(stats.page_trend_test(np.asarray(rows, dtype=float)).pvalue)


def mean_rank_correlation(rows: Sequence[Sequence[float]]) -> float:
    """The mean over rows of Spearman's rho with the order of the columns; NaN where no row varies."""
    values = np.asarray(rows, dtype=float)
    order = np.broadcast_to(np.arange(values.shape[1], dtype=float), values.shape)
    each = correlations(values, order, "spearman")
    return float(np.mean(each[~np.isnan(each)])) if not np.isnan(each).all() else math.nan


def kappa(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Cohen's kappa of two yes-or-no answers; NaN where both always give the same one answer."""
    from statsmodels.stats.inter_rater import cohens_kappa

    if len({*a, *b}) == 1:
        return math.nan
    table = np.histogram2d(np.asarray(a, dtype=float), np.asarray(b, dtype=float), bins=2, range=[[0, 1], [0, 1]])[0]
    return float(cohens_kappa(table, return_results=False))


def auc(score: Sequence[float], yes: Sequence[bool]) -> float:
    """The chance that a yes scores higher than a no, ties counting half (Mann-Whitney U); NaN without either."""
    from scipy import stats

    s, y = np.asarray(score, dtype=float), np.asarray(yes)
    if y.all() or not y.any():
        return math.nan
    return float(stats.mannwhitneyu(s[y], s[~y]).statistic / (y.sum() * (~y).sum()))
