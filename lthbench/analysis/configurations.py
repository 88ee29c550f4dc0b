"""Tests over configurations: rank correlations over arms and recipes, and agreement of barriers with matching."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lthbench.analysis import ranks
from lthbench.analysis.decide import decide, outcome_of, shortfall, unfinished
from lthbench.analysis.evidence import Evidence, NotPlanned
from lthbench.analysis.verdict import Effect, Part
from lthbench.suite.claims import Agreement, Rank, Selection


def rank(test: Rank, evidence: Evidence, alpha: float) -> Part:
    """A rank correlation over configurations."""
    x, y = [], []
    planned = 0
    for axes in test.of:
        try:
            pairs = _configurations(test, axes.x, axes.y, axes.minus, evidence)
        except NotPlanned:
            continue
        planned += 1
        x += [pair[0] for pair in pairs]
        y += [pair[1] for pair in pairs]
    if not planned:
        raise NotPlanned("no configurations with both numbers")
    if not x:
        return unfinished(test.what, test.counts, evidence)
    sign = -1.0 if test.expected == "less" else 1.0
    first, second = np.asarray(x), sign * np.asarray(y)
    found = ranks.correlation(first, second, test.method)
    unit = "rho" if test.method == "spearman" else "tau"
    shown: dict[str, Any] = {"what": test.what, "counts": test.counts, "n": len(x), "keys": tuple(evidence.keys),
                             "test": f"{test.method.capitalize()} over configurations, permutation"}  # fmt: skip
    if math.isnan(found):
        return Part(outcome="inconclusive", reason=f"{len(x)} configurations do not differ in one of the two", **shown)
    drawn = ranks.bootstrap(first, second, test.method)
    low, high = (float(np.quantile(sign * drawn, q)) for q in (alpha / 2, 1 - alpha / 2))
    shown["effect"] = Effect(sign * found, low, high, unit)
    if evidence.lacking.missing:
        return Part(outcome="inconclusive", reason="not all replicates are done; decided when they are", **shown)
    if len(x) < test.minimum:
        reason = f"{len(x)} configurations; a verdict needs {test.minimum}"
        return Part(outcome="inconclusive", reason=reason, **shown)
    bound = sign * test.than
    if test.than:
        shown["test"] = f"{test.method.capitalize()} over configurations, bootstrap"
        p, against = (float((1 + np.sum(c)) / (1 + len(drawn))) for c in (drawn <= bound, drawn >= bound))
    else:
        p, against = (ranks.permutation_p(first, s * second, test.method) for s in (1, -1))
    return Part(outcome=outcome_of(p, against, alpha), p=p, p_against=against, **shown)


def _configurations(
    test: Rank, x: Selection, y: Selection, minus: Selection | None, evidence: Evidence
) -> list[tuple[float, float]]:
    """The two numbers of each configuration, means over replicates."""
    found = []
    onsets = (y.metric or test.metric) == "onset"
    names: dict[tuple[str, str], None] = {}
    for point, captured in evidence.select(y):
        names[point.arm, captured.get("config", "")] = None
    known = {(point.arm, captured.get("config", "")) for point, captured in evidence.select(x)}
    for arm, config in (name for name in names if name in known):

        def of(s: Selection, arm: str = arm, config: str = config) -> Selection:
            return s.model_copy(update={"arm": arm, "variant": s.variant.replace("{config}", config)})

        numbers = []
        for selection, sign in ((of(x), 1.0), *(((of(minus), -1.0),) if minus else ())):
            levels = evidence.levels(test.levels, [selection])
            each = [v for level in levels for v in evidence.values(selection, test.metric, level).values()]
            numbers.append(sign * sum(each) / len(each) if each else math.nan)
        if onsets:
            ends = evidence.onsets(of(y), 0.02).values()
            # Never stable within the grid ranks last: infinite whatever the other replicates say.
            middles = [(max(low, 0) + high) / 2 for low, high in ends]
        else:
            middles = list(evidence.values(of(y), test.metric, None).values())
        second = sum(middles) / len(middles) if middles else math.nan
        if not math.isnan(sum(numbers)) and not math.isnan(second):
            found.append((sum(numbers), min(second, 1e18)))
    return found


def agreement(test: Agreement, evidence: Evidence, alpha: float) -> Part:
    """A barrier under the threshold agrees with matching, over the arms and levels of a replicate."""
    cells: dict[int, list[tuple[float, bool, str]]] = {}
    planned = False
    for arm in evidence.arms(test.barrier.arm):
        barrier, ticket, dense = (
            s.model_copy(update={"arm": arm}) for s in (test.barrier, test.accurate, test.reference)
        )
        try:
            if not any(point.level for point, _ in evidence.select(barrier)):
                continue
            levels = evidence.levels(test.levels, (barrier, ticket, dense))
        except NotPlanned:
            continue
        planned = True
        for level in levels:
            height, accuracy, reference = (
                evidence.values(barrier, "test_barrier", level),
                evidence.values(ticket, test.metric, level),
                evidence.values(dense, test.metric, level),
            )
            for r in height.keys() & accuracy.keys() & reference.keys():
                matches = accuracy[r] - reference[r] >= -test.within
                cells.setdefault(r, []).append((height[r], matches, arm))
    if not planned:
        raise NotPlanned("no barriers of pruned networks")
    if not cells:
        return unfinished(test.what, test.counts, evidence)

    def over(statistic: Callable[[list[tuple[float, bool, str]]], float], left_out: str = "") -> list[float]:
        return [statistic([c for c in cells[r] if c[2] != left_out]) for r in sorted(cells)]

    def agreed(of: list[tuple[float, bool, str]]) -> float:
        return ranks.kappa([height < 100 * test.threshold for height, _, _ in of], [matches for _, matches, _ in of])

    def ranked(of: list[tuple[float, bool, str]]) -> float:
        return ranks.auc([-height for height, _, _ in of], [matches for _, matches, _ in of])

    kappas = [k for k in over(agreed) if not math.isnan(k)]
    areas = [a for a in over(ranked) if not math.isnan(a)]
    if len(kappas) < len(cells):
        share = sum(m for v in cells.values() for _, m, _ in v) / sum(map(len, cells.values()))
        reason = f"matching does not vary in some replicate ({share:.0%} match): there is nothing to predict"
        return Part(
            test.what, "inconclusive", shortfall(evidence, len(cells)) or reason, test.counts, "Cohen's kappa",
            n=len(cells), keys=tuple(evidence.keys),
        )  # fmt: skip
    part = decide(
        kappas, "greater", evidence, alpha, what=test.what, counts=test.counts, unit="kappa", test="kappa, one-sided t"
    )
    arms = sorted({arm for v in cells.values() for _, _, arm in v})
    without = [k for arm in arms if len(arms) > 1 for k in over(agreed, arm) if not math.isnan(k)]
    notes = [part.reason] if part.reason else []
    if areas:
        notes.append(f"area under the curve {sum(areas) / len(areas):.2f}")
    if without:
        notes.append(f"kappa without one arm {min(without):.2f} to {max(without):.2f}")
    return replace(part, reason="; ".join(notes))
