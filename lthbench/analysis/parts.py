"""Tests of claims on one pair over its replicates: contrasts, times in intervals, trends, mixed models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lthbench.analysis import intervals, ranks
from lthbench.analysis.decide import decide, outcome_of, paired_interval, shortfall, unfinished
from lthbench.analysis.evidence import Evidence, unit_of
from lthbench.analysis.mixed import ModelError, fit, predicted_share
from lthbench.analysis.rows import Row, model_rows
from lthbench.analysis.verdict import Effect, Part
from lthbench.suite.claim_tests import Contrast, Mixed, Onset, Trend, Waiting


def contrast(test: Contrast, evidence: Evidence, alpha: float) -> Part:
    """The mean of some selections minus that of others."""
    terms = [*test.plus, *test.minus]
    levels = evidence.levels(test.levels, terms)
    unit = unit_of(test.plus[0].metric or test.metric)

    def differences(at: Sequence[int | None]) -> list[float]:
        means: dict[int, float] = {}
        sides: list[dict[int, float]] = []
        for side in (test.plus, test.minus):
            values = [evidence.values(term, test.metric, level) for term in side for level in at]
            common = set.intersection(*map(set, values)) if values else None
            sides.append(
                {r: math.fsum(v[r] for v in values) / len(values) for r in common} if common is not None else {}
            )
        plus, minus = sides
        for replicate in sorted(plus if not test.minus else plus.keys() & minus.keys()):
            means[replicate] = test.times * (plus[replicate] - minus.get(replicate, 0.0))
        return list(means.values())

    def part(at: Sequence[int | None]) -> Part:
        return decide(
            differences(at), test.expected, evidence, alpha,
            what=test.what, counts=test.counts, unit=unit, than=test.than, margin=test.margin,
        )  # fmt: skip

    if test.over_levels == "mean":
        return part(levels)
    # It must hold at every level: the level that speaks least for it decides (an intersection-union test).
    each = [part([level]) for level in levels]
    weakest = max(range(len(each)), key=lambda i: -1 if each[i].p is None else each[i].p or 0)
    found = each[weakest]
    against = [p.p_against for p in each if p.p_against is not None and p.outcome != "supported"]
    p_against = min(1.0, len(each) * min(against)) if against else None
    outcome = found.outcome
    if outcome == "inconclusive" and p_against is not None and p_against <= alpha:
        outcome = "contradicted"
    if len(levels) == 1:
        return found
    where = f"weakest at level {levels[weakest]} of {', '.join(map(str, levels))}"
    reason = f"{found.reason}; {where}" if found.reason else where
    return replace(found, p_against=p_against, outcome=outcome, reason=reason)


def onset(test: Onset, evidence: Evidence, alpha: float) -> Part:
    """One class of arms is stable earlier than another."""
    groups = [evidence.onsets(side, test.threshold) for side in (test.earlier, test.later)]
    return earlier(test.what, test.counts, groups[0], groups[1], "iterations", evidence, alpha)


def waiting(test: Waiting, evidence: Evidence, alpha: float) -> Part:
    """A time until something happens is shorter in one selection than in another."""
    groups = []
    levels = evidence.levels(test.levels, (test.shorter, test.longer))
    for side in (test.shorter, test.longer):
        times: dict[int, list[tuple[float, float]]] = {}
        for level in levels:
            until = evidence.values(side, test.censored, level)
            reached = evidence.values(side, test.metric, level)
            for r, end in until.items():
                # A time is known exactly; an interval closed at its right end alone holds just it.
                when = (math.nextafter(reached[r], -math.inf), reached[r]) if r in reached else (end, math.inf)
                times.setdefault(r, []).append(when)
        groups.append({r: (sum(t[0] for t in v) / len(v), sum(t[1] for t in v) / len(v)) for r, v in times.items()})
    return earlier(test.what, test.counts, groups[0], groups[1], "iterations", evidence, alpha)


def earlier(
    what: str,
    counts: bool,
    first: Mapping[int, tuple[float, float]],
    second: Mapping[int, tuple[float, float]],
    unit: str,
    evidence: Evidence,
    alpha: float,
) -> Part:
    """Whether the times of the first group, known to lie in intervals, come before the second's."""
    n = min(len(first), len(second))
    if not n:
        return unfinished(what, counts, evidence)
    # What the intervals leave possible for the difference of the medians.
    medians = [[float(np.median([max(t[end], 0) for t in g.values()])) for end in (0, 1)] for g in (first, second)]
    middle = [low if math.isinf(high) else (low + high) / 2 for low, high in medians]
    low, high = medians[0][0] - medians[1][1], medians[0][1] - medians[1][0]
    note = "" if high - low < 1e-6 else f"the grid leaves {low:+.0f} to {high:+.0f}".replace("inf", "∞")
    shown: dict[str, Any] = {
        "what": what, "counts": counts, "effect": Effect(middle[0] - middle[1], unit=unit), "n": n,
        "keys": tuple(evidence.keys), "test": "generalised log-rank, permutation",
    }  # fmt: skip
    if (reason := shortfall(evidence, n)) is not None:
        return Part(outcome="inconclusive", reason=reason, **shown)
    p, against, z = intervals.earlier_p(list(first.values()), list(second.values()))
    outcome = outcome_of(p, against, alpha)
    seeds = None
    if outcome == "inconclusive":
        # The standardised statistic grows with the root of n; and some n is needed for any p to be as small as alpha.
        exact = next(k for k in range(2, 50) if 1 / math.comb(2 * k, k) <= alpha)
        grown = math.ceil(n * (2.49 / abs(z)) ** 2) if abs(z) > 0.1 else None
        seeds = None if grown is None else max(exact, n + 1, grown)
    return Part(outcome=outcome, reason=note, p=p, p_against=against, seeds=seeds, **shown)


def trend(test: Trend, evidence: Evidence, alpha: float) -> Part:
    """Values ascend with the dose, up to the chosen one."""
    levels = evidence.levels(test.levels, (test.doses, test.none))
    doses = sorted({float(names["dose"]) for _, names in evidence.select(test.doses)})
    if evidence.chosen is not None:
        doses = [dose for dose in doses if dose <= float(evidence.chosen)]
    sign = -1.0 if test.expected == "less" else 1.0
    steps = [test.none] + [
        test.doses.model_copy(update={"variant": test.doses.variant.replace("{dose}", f"{dose:g}")}) for dose in doses
    ]
    columns = [[evidence.values(step, test.metric, level) for level in levels] for step in steps]
    common = sorted(set.intersection(*(set(values) for column in columns for values in column)))
    if not common:
        return unfinished(test.what, test.counts, evidence)
    rows = [[sign * math.fsum(v[r] for v in column) / len(column) for column in columns] for r in common]
    change = [sign * (row[-1] - row[0]) for row in rows]
    effect = Effect(sum(change) / len(change), *paired_interval(change, alpha), unit_of(test.metric))
    shown: dict[str, Any] = {"what": test.what, "counts": test.counts, "effect": effect, "n": len(rows),
                             "keys": tuple(evidence.keys), "test": "Page's trend"}  # fmt: skip
    if (reason := shortfall(evidence, len(rows))) is not None:
        return Part(outcome="inconclusive", reason=reason, **shown)
    if len(steps) < 3 or len(rows) < 2:
        return Part(outcome="inconclusive", reason="a trend needs two doses and two replicates", **shown)
    p, against = ranks.page(rows), ranks.page([row[::-1] for row in rows])
    return Part(outcome=outcome_of(p, against, alpha), p=p, p_against=against, **shown)


def mixed(test: Mixed, evidence: Evidence, alpha: float) -> Part:
    """A coefficient of a linear mixed model."""
    rows = model_rows(test, evidence)
    unit = "logit" if test.logit else unit_of(test.metric)
    if not rows:
        return unfinished(test.what, test.counts, evidence)
    replicates = [int(row["replicate"]) for row in rows]
    units = replicates if test.over == "replicates" else [str(row["configuration"]) for row in rows]
    columns = {
        name: [row[name] for row in rows] for name in rows[0] if name not in ("value", "replicate", "configuration")
    }
    done = len(set(replicates))
    try:
        found = fit([float(row["value"]) for row in rows], replicates, units, columns, test.fixed, test.tested)
    except ModelError as error:
        reason = shortfall(evidence, done) or str(error)
        return Part(test.what, "inconclusive", reason, test.counts, "mixed model", n=done, keys=tuple(evidence.keys))
    part = decide(
        found.pseudo_values, test.expected, evidence, alpha, what=test.what, counts=test.counts, unit=unit,
        test=f"mixed model, error by leaving out {test.over}", also=("Wald, two-sided", found.wald_p), done=done,
    )  # fmt: skip
    if test.compared:
        shares = [f"{term} {_share(rows, units, columns, term)}" for term in test.compared]
        told = f"each alone, of the variance of {test.over} left out: {', '.join(shares)}"
        part = replace(part, reason="; ".join(filter(None, (part.reason, told))))
    # More replicates do not make more configurations.
    return part if test.over == "replicates" else replace(part, seeds=None, of="configurations")


def _share(
    rows: list[Row], units: Sequence[float | str], columns: Mapping[str, Sequence[float | str]], term: str
) -> str:
    try:
        return f"{predicted_share([float(row['value']) for row in rows], units, columns, term):.2f}"
    except ModelError:
        return "unknown"
