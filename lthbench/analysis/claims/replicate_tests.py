"""Tests of claims on one pair over its replicates: contrasts, times in intervals, trends, mixed models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lthbench.analysis.claims.decide import (
    Telling,
    decide,
    decisive,
    of_all,
    outcome_of,
    outlook,
    shortfall,
    unfinished,
)
from lthbench.analysis.claims.evidence import Evidence, unit_of
from lthbench.analysis.claims.mixed_rows import Row, model_rows
from lthbench.analysis.claims.verdict import Effect, PartResult, PValues
from lthbench.analysis.claims.wording import compared, level_of, named, sooner, spread, together
from lthbench.analysis.quantity import digits_of, effect_text, quantity
from lthbench.analysis.stats import interval_censored, rank_correlation
from lthbench.analysis.stats.mixed_models import ModelError, fit, predicted_share
from lthbench.suite.claim_tests import Contrast, Mixed, Onset, Trend, Waiting


def contrast(test: Contrast, evidence: Evidence, alpha: float) -> PartResult:
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

    metric = test.plus[0].metric or test.metric
    subject = test.subject or together(test.plus, evidence.chosen)
    reference = test.reference or together(test.minus, evidence.chosen)

    def tell(effect: Effect, n: str) -> str:
        if not test.minus:
            return level_of(effect, n, subject, metric)
        return compared(effect, n, subject, reference, "" if test.subject else metric)

    def part(at: Sequence[int | None]) -> PartResult:
        return decide(
            differences(at), test.expected, evidence, alpha, tell=tell,
            what=test.what, counts=test.counts, unit=unit, than=test.than, margin=test.margin,
        )  # fmt: skip

    if test.over_levels == "mean" or len(levels) == 1:
        return part(levels)
    return _at_every_level({level: part([level]) for level in levels}, alpha)


def _at_every_level(parts: Mapping[int | None, PartResult], alpha: float) -> PartResult:
    """Combine the parts of the levels, at each of which it must hold; the level that decides is shown."""
    each = list(parts.values())
    p_values = of_all(each)
    outcome = outcome_of(p_values, alpha)
    where = list(parts)[decisive(each, outcome) or 0]
    shown = parts[where]
    if shown.effect is None:
        return shown
    note = f"level {where} of {', '.join(map(str, parts))}, which speaks {_SPEAKS.get(outcome, 'least for it')}"
    if outcome == "inconclusive" and shown.outcome in _SPEAKS:
        note += f": {shown.outcome} alone, but not among {len(parts)} levels"
    return replace(
        shown,
        outcome=outcome,
        p_values=p_values,
        finding=f"at level {where} {shown.finding}",
        reason="; ".join(filter(None, (shown.reason, note))),
        outlook=shown.outlook if outcome == "inconclusive" else None,
    )


_SPEAKS: Mapping[str, str] = {"contradicted": "most against it", "negligible": "most for no effect"}


def onset(test: Onset, evidence: Evidence, alpha: float) -> PartResult:
    """One class of arms is stable earlier than another, as a share of training."""
    groups = [evidence.onsets(side, test.threshold) for side in (test.earlier, test.later)]
    unclear = sorted({r for group in groups for r, found in group.items() if not found.is_monotone})
    note = f"stability is not monotone in replicate {', '.join(map(str, unclear))}" if unclear else ""
    spans = [{r: (max(found.low, 0.0), found.high) for r, found in group.items()} for group in groups]

    def tell(effect: Effect, n: str) -> str:
        whose = [f"{side.arm} networks" for side in (test.earlier, test.later)]
        return sooner(effect, n, whose[0], whose[1], "onset_share")

    return earlier(test.what, test.counts, spans[0], spans[1], note, tell, evidence, alpha)


def waiting(test: Waiting, evidence: Evidence, alpha: float) -> PartResult:
    """A share of training until something happens is shorter in one selection than in another.

    If it does not happen within training, the waiting time is the whole of training (the restricted waiting time).
    """
    groups = []
    levels = evidence.levels(test.levels, (test.shorter, test.longer))
    for side in (test.shorter, test.longer):
        spans: dict[int, list[tuple[float, float]]] = {}
        for level in levels:
            reached = evidence.values(side, test.metric, level)
            for r, before in evidence.values(side, test.censored, level).items():
                spans.setdefault(r, []).append((before, reached.get(r, before)))
        whole = {r: v for r, v in spans.items() if len(v) == len(levels)}  # the others failed at a level
        groups.append({r: (sum(t[0] for t in v) / len(v), sum(t[1] for t in v) / len(v)) for r, v in whole.items()})

    def tell(effect: Effect, n: str) -> str:
        return sooner(effect, n, named(test.shorter), named(test.longer), test.metric)

    return earlier(test.what, test.counts, groups[0], groups[1], "", tell, evidence, alpha)


def earlier(
    what: str,
    counts: bool,
    first: Mapping[int, tuple[float, float]],
    second: Mapping[int, tuple[float, float]],
    note: str,
    tell: Telling,
    evidence: Evidence,
    alpha: float,
) -> PartResult:
    """Whether points of training in the first intervals come before the second's, replicate by replicate.

    Args:
        first, second: replicate -> the interval that its point lies in, as shares of training.
    """
    both = sorted(first.keys() & second.keys())
    if not both:
        return unfinished(what, counts, evidence)
    sides = [[(100 * group[r][0], 100 * group[r][1]) for r in both] for group in (first, second)]
    low, high = interval_censored.possible(sides[0], sides[1])
    reasons = [note] if note else []
    if high - low > 1e-6:
        reasons.append(f"the points measured leave a mean difference of {low:+.2f} to {high:+.2f} % of training")
    found = interval_censored.paired_intervals(sides[0], sides[1])
    left, right = (None, None) if found is None else found.interval(alpha)
    effect = Effect((low + high) / 2, left, right, "% of training", 1 - 2 * alpha)
    shown: dict[str, Any] = {
        "what": what, "counts": counts, "effect": effect, "n": len(both), "finding": tell(effect, f"n = {len(both)}"),
        "keys": tuple(evidence.keys), "test": "paired t of the middles of intervals, one-sided",
    }  # fmt: skip
    if (reason := shortfall(evidence, len(both))) is not None:
        return PartResult(outcome="inconclusive", reason=reason, **shown)
    if found is None:
        reasons.append("the replicates do not differ: no test exists")
        return PartResult(outcome="inconclusive", reason="; ".join(reasons), **shown)
    p_values = PValues(found.p_below(0.0), found.p_above(0.0))
    outcome = outcome_of(p_values, alpha)
    more = outlook(found, 0.0, alpha, effect.unit) if outcome == "inconclusive" else None
    return PartResult(outcome=outcome, reason="; ".join(reasons), p_values=p_values, outlook=more, **shown)


def trend(test: Trend, evidence: Evidence, alpha: float) -> PartResult:
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
    change = Effect(sign * math.fsum(row[-1] - row[0] for row in rows) / len(rows), unit=unit_of(test.metric))
    # Page's statistic is this mean up to a scale.
    effect = Effect(sign * rank_correlation.mean_rank_correlation(rows), unit="rho")
    found = (
        f"{quantity(test.metric).label} of {named(test.doses)} follows the dose with a mean rank correlation of "
        f"{effect.value:+.2f}, and changes by {effect_text(change)} up to the last {spread(effect, f'n = {len(rows)}')}"
    )
    shown: dict[str, Any] = {"what": test.what, "counts": test.counts, "effect": effect, "n": len(rows),
                             "keys": tuple(evidence.keys), "test": "Page's trend", "finding": found}  # fmt: skip
    if (reason := shortfall(evidence, len(rows))) is not None:
        return PartResult(outcome="inconclusive", reason=reason, **shown)
    if math.isnan(effect.value):
        return PartResult(outcome="inconclusive", reason="no dose makes a difference", **shown | {"effect": None})
    if len(steps) < 3 or len(rows) < 2:
        return PartResult(outcome="inconclusive", reason="a trend needs two doses and two replicates", **shown)
    p_values = PValues(rank_correlation.page(rows), rank_correlation.page([row[::-1] for row in rows]))
    return PartResult(outcome=outcome_of(p_values, alpha), p_values=p_values, **shown)


def mixed(test: Mixed, evidence: Evidence, alpha: float) -> PartResult:
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
    done, left_out = len(set(replicates)), evidence.left_out()
    try:
        found = fit([float(row["value"]) for row in rows], replicates, units, columns, test.fixed, test.tested)
    except ModelError as error:
        reason = "; ".join(filter(None, (shortfall(evidence, done) or str(error), left_out)))
        return PartResult(
            test.what, "inconclusive", reason, test.counts, "mixed model", n=done, keys=tuple(evidence.keys)
        )
    part = decide(
        found.pseudo_values, test.expected, evidence, alpha, what=test.what, counts=test.counts, unit=unit,
        tell=lambda effect, n: _of_coefficient(test, effect, n),
        test=f"mixed model, error by leaving out {test.over}", also=("Wald, two-sided", found.wald_p),
        done=None if test.over == "replicates" else done,
    )  # fmt: skip
    if left_out:
        part = replace(part, reason="; ".join(filter(None, (part.reason, left_out))))
    if test.compared:
        shares = [f"{term} {_share(rows, units, columns, term)}" for term in test.compared]
        told = f"each alone, of the variance of {test.over} left out: {', '.join(shares)}"
        part = replace(part, reason="; ".join(filter(None, (part.reason, told))))
    return part if test.over == "replicates" else replace(part, of="configurations")


def _of_coefficient(test: Mixed, effect: Effect, n: str) -> str:
    """The finding of a coefficient: how two kinds of rows differ, how their difference changes, or else a slope."""
    first, _, of = test.tested.partition(" x ")
    size = f"{effect.value:+.{digits_of(effect)}f} {effect.unit}".rstrip()
    if len(test.rows) == 2 and first in test.rows:
        (other,) = (rows for name, rows in test.rows.items() if name != first)
        subject, reference = named(test.rows[first].of), named(other.of)
        if of:
            return f"the advantage of {subject} over {reference} changes by {size} per unit of {of} {spread(effect, n)}"
        if test.logit:
            return compared(replace(effect, unit=""), n, subject, f"{reference} in the logit of accuracy", "")
        return compared(effect, n, subject, reference, test.metric)
    return f"one unit more of {test.tested} goes with {size} of {_outcome_of_model(test)} {spread(effect, n)}"


def _outcome_of_model(test: Mixed) -> str:
    first = next(iter(test.rows.values()))
    of = named(first.of)
    return f"{quantity(test.metric).label} of {of}" + (f" against {named(first.minus)}" if first.minus else "")


def _share(
    rows: list[Row], units: Sequence[float | str], columns: Mapping[str, Sequence[float | str]], term: str
) -> str:
    try:
        return f"{predicted_share([float(row['value']) for row in rows], units, columns, term):.2f}"
    except ModelError:
        return "unknown"
