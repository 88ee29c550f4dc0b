"""Tests over configurations: rank correlations over arms and recipes, and agreement of barriers with matching."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from lthbench.analysis.claims.decide import UNDONE, failures, outcome_of, shortfall, unfinished
from lthbench.analysis.claims.evidence import EXACTLY, THRESHOLD, Evidence, NotPlanned
from lthbench.analysis.claims.verdict import Effect, Outcome, PartResult, PValues
from lthbench.analysis.claims.wording import named, spread
from lthbench.analysis.quantity import quantity
from lthbench.analysis.stats import rank_correlation
from lthbench.suite.claim_tests import Agreement, Axes, Rank, Selection


def rank(test: Rank, evidence: Evidence, alpha: float) -> PartResult:
    """A rank correlation over configurations."""
    found: dict[frozenset[str], tuple[float, float]] = {}  # by the tasks of x: one with two names counts once
    planned = 0
    for axes in test.of:
        try:
            for keys, x, y in _configurations(test, axes, evidence):
                found.setdefault(keys, (x, y))
        except NotPlanned:
            continue
        planned += 1
    if not planned:
        raise NotPlanned("no configurations with both numbers")
    if not found:
        return unfinished(test.what, test.counts, evidence)
    sign = -1.0 if test.expected == "less" else 1.0
    first, second = (np.asarray(side) for side in zip(*found.values(), strict=True))
    second = sign * second
    rho = rank_correlation.correlation(first, second, test.method)
    unit = "rho" if test.method == "spearman" else "tau"
    shown: dict[str, Any] = {
        "what": test.what, "counts": test.counts, "n": len(found), "of": "configurations", "keys": tuple(evidence.keys),
        "test": f"{test.method.capitalize()} over configurations, permutation",
    }  # fmt: skip

    def told(outcome: Outcome, reason: str, p_values: PValues = PValues()) -> PartResult:  # noqa: B008 (immutable)
        failed = f"without what failed: {why}" if (why := failures(evidence)) else ""
        reason = "; ".join(filter(None, (reason, evidence.left_out(), failed)))
        return PartResult(outcome=outcome, reason=reason, p_values=p_values, **shown)

    if math.isnan(rho):
        return told("inconclusive", f"{len(found)} configurations do not differ in one of the two")
    drawn = rank_correlation.bootstrap(first, second, test.method)
    low, high = (float(np.quantile(sign * drawn, q)) for q in (alpha, 1 - alpha))
    effect = shown["effect"] = Effect(sign * rho, low, high, unit, 1 - 2 * alpha)
    shown["finding"] = _of_ranks(test, effect, len(found))
    if evidence.lacking.missing:
        return told("inconclusive", f"not all replicates are done; {UNDONE}")
    if len(found) < test.minimum:
        return told("inconclusive", f"{len(found)} configurations; a verdict needs {test.minimum}")
    bound = sign * test.than
    # The interval that is shown must say so, and so must a permutation test where the bound is no correlation at all.
    p, against = (float((1 + np.sum(c)) / (1 + len(drawn))) for c in (drawn <= bound, drawn >= bound))
    if test.than:
        shown["test"] = f"{test.method.capitalize()} over configurations, bootstrap"
    else:
        p, against = (
            max(own, rank_correlation.permutation_p(first, s * second, test.method))
            for own, s in ((p, 1), (against, -1))
        )
    p_values = PValues(p, against)
    return told(outcome_of(p_values, alpha), "", p_values)


def _of_ranks(test: Rank, effect: Effect, n: int) -> str:
    """The finding of a rank correlation, in the words of its first axes."""
    axes = test.of[0]
    x = f"{quantity(axes.x.metric or test.metric).label} of {named(axes.x)}"
    x += f" against {named(axes.minus)}" if axes.minus else ""
    y = quantity(axes.y.metric or test.metric).label
    name = "rho" if test.method == "spearman" else "tau"
    return f"{x} and {y} are ranked with a {name} of {effect.value:+.2f} {spread(effect, f'{n} configurations')}"


def _configurations(test: Rank, axes: Axes, evidence: Evidence) -> Iterator[tuple[frozenset[str], float, float]]:
    """For each configuration the tasks of x, and the two numbers, which are means over replicates."""
    x, y, minus = axes.x, axes.y, axes.minus
    onsets = (y.metric or test.metric) == "onset"
    names: dict[tuple[str, str], None] = {}
    for point, captured in evidence.select(y.model_copy(update={"rewound": None}) if onsets else y):
        names[point.arm, captured.get("config", "")] = None
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    for point, captured in evidence.select(x):
        keys[point.arm, captured.get("config", "")].add(point.key)
    for arm, config in (name for name in names if name in keys):

        def of(s: Selection, arm: str = arm, config: str = config) -> Selection:
            return s.model_copy(update={"arm": EXACTLY + arm, "variant": s.variant.replace("{config}", config)})

        first = 0.0
        for selection, sign in ((of(x), 1.0), *(((of(minus), -1.0),) if minus else ())):
            levels = evidence.levels(test.levels, [selection])
            each = [v for level in levels for v in evidence.values(selection, test.metric, level).values()]
            first += sign * sum(each) / len(each) if each else math.nan
        if onsets:
            spans = [span for span in evidence.onsets(of(y), THRESHOLD).values() if span.is_monotone]
            # What is never stable within the grid lies between its last step and the end, and so ranks last.
            seconds = [(max(span.low, 0.0) + span.high) / 2 for span in spans]
        else:
            seconds = list(evidence.values(of(y), test.metric, None).values())
        second = sum(seconds) / len(seconds) if seconds else math.nan
        if not math.isnan(first + second):
            yield frozenset(keys[arm, config]), first, second
        else:
            metric = (x if math.isnan(first) else y).metric or test.metric
            evidence.leave_out(frozenset(keys[arm, config]), f"{arm} {config}".strip(), metric, evidence.replicates)


@dataclass(frozen=True)
class _Cell:
    """One arm, level and replicate: whether its barrier is low, how low, and whether it matches."""

    arm: str
    level: int | None
    is_stable: bool
    barrier: float
    matches: bool


def agreement(test: Agreement, evidence: Evidence, alpha: float) -> PartResult:
    """Whether low barriers go with tickets that match the dense network, over the arms and levels of each replicate.

    Under the hypothesis of no agreement the barriers of arms are exchangeable: they are permuted between the arms of a
    replicate, all levels of an arm together, since they are not independent.
    """
    cells = _agreement_cells(test, evidence)
    if not cells:
        return unfinished(test.what, test.counts, evidence)
    replicates = [cells[r] for r in sorted(cells)]
    arms = sorted({cell.arm for row in replicates for cell in row})

    def mean_kappa(without: str = "") -> float:
        kept = [[cell for cell in row if cell.arm != without] for row in replicates]
        each = [rank_correlation.kappa([c.is_stable for c in row], [c.matches for c in row]) for row in kept]
        known = [k for k in each if not math.isnan(k)]
        return sum(known) / len(known) if known else math.nan

    found = mean_kappa()
    everything = [cell for row in replicates for cell in row]
    area = rank_correlation.auc([-cell.barrier for cell in everything], [cell.matches for cell in everything])
    without = [k for arm in arms if len(arms) > 2 and not math.isnan(k := mean_kappa(arm))]
    notes = [] if math.isnan(area) else [f"area under the curve {area:.2f}"]
    notes += [f"kappa without one arm {min(without):.2f} to {max(without):.2f}"] if without else []
    shown: dict[str, Any] = {
        "what": test.what, "counts": test.counts, "n": len(replicates), "keys": tuple(evidence.keys),
        "test": "Cohen's kappa, arms exchanged within replicates",
        "effect": None if math.isnan(found) else Effect(found, unit="kappa"),
        "finding": "" if math.isnan(found) else
        f"low barriers and matching agree with a kappa of {found:+.2f} (n = {len(replicates)})",
    }  # fmt: skip
    if (reason := shortfall(evidence, len(replicates))) is not None:
        return PartResult(outcome="inconclusive", reason=reason, **shown)
    share = sum(cell.matches for cell in everything) / len(everything)
    if share in (0, 1) or len({cell.is_stable for cell in everything}) == 1:
        reason = (
            f"{share:.0%} match, {sum(c.is_stable for c in everything)} of {len(everything)} are stable: no contrast"
        )
        return PartResult(outcome="inconclusive", reason=reason, **shown)
    p_values = PValues(*_exchange_p(replicates))
    return PartResult(outcome=outcome_of(p_values, alpha), reason="; ".join(notes), p_values=p_values, **shown)


def _agreement_cells(test: Agreement, evidence: Evidence) -> dict[int, list[_Cell]]:
    """Replicate -> its cells.

    Raises:
        NotPlanned: no barriers of pruned networks are measured.
    """
    cells: dict[int, list[_Cell]] = {}
    seen: set[str] = set()  # tickets that a cell has already: arms with one recipe share theirs
    planned = False
    for arm in evidence.arms(test.barrier.arm):
        barrier, ticket, dense = (
            s.model_copy(update={"arm": EXACTLY + arm}) for s in (test.barrier, test.accurate, test.reference)
        )
        try:
            if not any(point.level for point, _ in evidence.select(barrier)):
                continue
            levels = evidence.levels(test.levels, (barrier, ticket, dense))
        except NotPlanned:
            continue
        planned = True
        trained = {(point.level, point.replicate): point.key for point, _ in evidence.select(ticket)}
        for level in levels:
            height = evidence.values(barrier, "test_barrier", level)
            accuracy = evidence.values(ticket, test.metric, level)
            reference = evidence.values(dense, test.metric, level)
            for r in height.keys() & accuracy.keys() & reference.keys():
                if trained[level, r] in seen:
                    continue
                seen.add(trained[level, r])
                matches = accuracy[r] - reference[r] >= -test.within
                cell = _Cell(arm, level, height[r] < 100 * test.threshold, height[r], matches)
                cells.setdefault(r, []).append(cell)
    if not planned:
        raise NotPlanned("no barriers of pruned networks")
    return cells


def _exchange_p(replicates: list[list[_Cell]]) -> tuple[float, float]:
    """One-sided p of agreement and of disagreement when arms' barriers are exchanged within replicates.

    The statistic is the sum over replicates of the covariance of low barrier and matching, so that its distribution
    is the convolution of the replicates' own.
    """
    totals = np.array([0.0])
    observed = 0.0
    random = np.random.default_rng(20200105)
    for row in replicates:
        arms = sorted({cell.arm for cell in row})
        levels = sorted({cell.level for cell in row}, key=lambda level: level or 0)
        stable = {(c.arm, c.level): float(c.is_stable) for c in row}
        matches = {(c.arm, c.level): float(c.matches) for c in row}
        center = sum(matches.values()) / len(matches)

        def covariance(order: tuple[str, ...], arms: list[str] = arms, levels: list[Any] = levels,
                       stable: dict[Any, float] = stable, matches: dict[Any, float] = matches,
                       center: float = center) -> float:  # fmt: skip
            pairs = zip(arms, order, strict=True)
            both = [
                (a, b, level) for a, b in pairs for level in levels if (a, level) in matches and (b, level) in stable
            ]
            return sum(stable[b, level] * (matches[a, level] - center) for a, b, level in both)

        observed += covariance(tuple(arms))
        orders = (
            list(permutations(arms))
            if len(arms) <= 5
            else [tuple(arms), *(tuple(random.permutation(arms)) for _ in range(119))]
        )
        totals = (totals[:, None] + np.array([covariance(order) for order in orders])).ravel()
        if len(totals) > 50_000:
            totals = random.choice(totals, 50_000)
    return float(np.mean(totals >= observed - 1e-9)), float(np.mean(totals <= observed + 1e-9))
