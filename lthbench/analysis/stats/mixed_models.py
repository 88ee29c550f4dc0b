"""Linear mixed models with a random intercept for each replicate (statsmodels).

A replicate's rows share initialisation and masks, so more than their mean is correlated, which the intercept alone
does not see: Wald's p is far too small. The estimate is the model's, its error comes from leaving out whole
replicates (jackknife, with the variances that all of them gave), and pseudo-values take the place of replicates in
the paired tests. Where recipes differ in what is tested, whole configurations are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Value = float | str


class ModelError(ValueError):
    """A model that cannot be fitted; the message says why."""


@dataclass(frozen=True)
class Fit:
    """The tested coefficient: the estimate, Wald's two-sided p, and a pseudo-value for each unit that is left out."""

    estimate: float
    wald_p: float
    pseudo_values: list[float]


def fit(
    values: Sequence[float],
    replicates: Sequence[int],
    units: Sequence[Value],
    columns: Mapping[str, Sequence[Value]],
    terms: Sequence[str],
    tested: str,
) -> Fit:
    """Fit value ~ 1 + terms + (1 | replicate).

    Args:
        units: what is left out at a time: replicates, or configurations.
        columns: name -> one value per row, numbers or (for `factor`) anything.
        terms: `NAME`, `log NAME`, `factor NAME`, or two of the former with ` x ` between.
        tested: the term (of one column) whose coefficient is wanted.

    Raises:
        ModelError: a name is unknown, the terms are not identifiable from these rows, or there are fewer than three
            units.
    """
    matrices = [np.ones((len(values), 1))]
    position = 0
    for term in terms:
        own = _columns(term, columns)
        if term == tested:
            position = sum(m.shape[1] for m in matrices)
        elif own.size and not np.ptp(own, axis=0).any():
            continue  # a single density, say: the intercept has it
        matrices.append(own)
    design, outcome, groups = np.hstack(matrices), np.asarray(values, dtype=float), np.asarray(replicates)
    owners = np.asarray(units)
    distinct = np.unique(owners)
    if len(distinct) < 3:
        raise ModelError(f"{len(distinct)} to leave out in turn; the model needs three")
    estimate, wald_p, ratio = _fitted(outcome, design, groups, position)
    pseudo = []
    for left in distinct:
        keep = owners != left
        _identifiable(design[keep])
        without = generalised_least_squares(outcome[keep], design[keep], groups[keep], ratio)[position]
        pseudo.append(len(distinct) * estimate - (len(distinct) - 1) * float(without))
    return Fit(estimate, wald_p, pseudo)


def predicted_share(
    values: Sequence[float], units: Sequence[Value], columns: Mapping[str, Sequence[Value]], term: str
) -> float:
    """The cross-validated R^2 of a term alone: what it explains of units whose values the fit has not seen.

    Each unit is left out in turn; its values are predicted by least squares on the term and an intercept. The share is
    1 - (squared errors) / (squared errors of the others' mean), so that 0 is no better than that, and less is worse
    (the PRESS statistic of Allen 1974, where units have one row each).

    Raises:
        ModelError: the term is unknown, or does not differ among the rows that are left.
    """
    outcome, owners = np.asarray(values, dtype=float), np.asarray(units)
    design = np.hstack([np.ones((len(outcome), 1)), _columns(term, columns)])
    error = baseline = 0.0
    for left in np.unique(owners):
        keep = owners != left
        _identifiable(design[keep])
        solution = np.linalg.lstsq(design[keep], outcome[keep], rcond=None)[0]
        error += float(np.square(outcome[~keep] - design[~keep] @ solution).sum())
        baseline += float(np.square(outcome[~keep] - outcome[keep].mean()).sum())
    if baseline == 0:
        raise ModelError("all values are equal")
    return 1 - error / baseline


def _columns(term: str, columns: Mapping[str, Sequence[Value]]) -> NDArray[np.float64]:
    if " x " in term:
        left, right = (_columns(part, columns) for part in term.split(" x ", 1))
        return np.asarray(left * right)
    kind, _, name = term.rpartition(" ")
    if name not in columns:
        raise ModelError(f"there is no '{name}' among {', '.join(columns)}")
    if kind == "factor":
        levels = sorted(set(columns[name]), key=str)
        return np.array([[float(v == level) for level in levels[1:]] for v in columns[name]]).reshape(
            len(columns[name]), len(levels) - 1
        )
    numbers = np.asarray(columns[name], dtype=float)[:, None]
    if kind == "log":
        if (numbers <= 0).any():
            raise ModelError(f"'{name}' is not above 0 everywhere, so it has no logarithm")
        return np.log(numbers)
    return numbers


def _identifiable(design: NDArray[np.float64]) -> None:
    scaled = design / np.maximum(np.abs(design).max(axis=0), 1e-300)
    if design.shape[0] <= design.shape[1] or np.linalg.matrix_rank(scaled) < design.shape[1]:
        raise ModelError("these rows cannot identify the model's terms: too few arms, levels or configurations")


def _fitted(
    outcome: NDArray[np.float64], design: NDArray[np.float64], groups: NDArray[np.int64], position: int
) -> tuple[float, float, float]:
    """The estimate, Wald's p, and the variance between replicates as a multiple of that within."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    _identifiable(design)
    if np.ptp(outcome) == 0:
        raise ModelError("all values are equal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a random intercept without variance is no fault here
        try:
            result = MixedLM(outcome, design, groups).fit(reml=True)
        except np.linalg.LinAlgError as error:
            raise ModelError(f"the mixed model cannot be fitted: {str(error).lower()}") from error
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing within: said below
        ratio = float(np.asarray(result.cov_re)[0, 0] / result.scale)
    if not np.isfinite([ratio, result.fe_params[position]]).all():
        raise ModelError("the mixed model cannot be fitted: it left nothing unexplained")
    return float(result.fe_params[position]), float(result.pvalues[position]), ratio


def generalised_least_squares(
    outcome: NDArray[np.float64], design: NDArray[np.float64], groups: NDArray[np.int64], ratio: float
) -> NDArray[np.float64]:
    """The fixed effects where the variance between groups is `ratio` times that within."""
    whitened_x, whitened_y = design.copy(), outcome.copy()
    for group in np.unique(groups):
        own = groups == group
        # (I + ratio 1 1')^(-1/2) takes this share of the group's mean away.
        share = 1 - 1 / np.sqrt(1 + own.sum() * ratio)
        whitened_x[own] -= share * design[own].mean(axis=0)
        whitened_y[own] -= share * outcome[own].mean()
    return np.asarray(np.linalg.lstsq(whitened_x, whitened_y, rcond=None)[0])
