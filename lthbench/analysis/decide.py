"""From values, one a replicate, to what a test decides, or with how many replicates it would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lthbench.analysis.evidence import Evidence
from lthbench.analysis.paired import (
    Paired,
    detectable,
    paired,
    power_equivalence,
    power_one_sided,
    smallest_n,
    wilcoxon,
)
from lthbench.analysis.verdict import Effect, Outcome, Part

T = "paired t, one-sided"
# How the reason ends where replicates are missing.
UNDONE = "decided when all are"
TOST = "two one-sided paired t"


def decide(
    values: Sequence[float],
    expected: str,
    evidence: Evidence,
    alpha: float,
    *,
    what: str,
    counts: bool = True,
    unit: str = "",
    than: float = 0.0,
    margin: float = 0.0,
    test: str = T,
    also: tuple[str, float] | None = None,
    done: int | None = None,
) -> Part:
    """The part of values, one a replicate, that are expected to be greater or less than a number, or equivalent.

    Args:
        done: how many replicates they are of, where they are of something else.
    """
    keys = tuple(evidence.keys)
    if not values:
        return unfinished(what, counts, evidence)
    sign = -1.0 if expected == "less" else 1.0
    mean = math.fsum(values) / len(values)
    spread = paired([sign * v for v in values])
    low, high = paired_interval(values, alpha)
    shown: dict[str, Any] = {
        "what": what, "counts": counts, "effect": Effect(mean, low, high, unit), "n": len(values), "keys": keys,
        "test": TOST if expected == "equivalent" else test, "margin": margin or abs(than) or None,
    }  # fmt: skip
    if (reason := shortfall(evidence, len(values) if done is None else done)) is not None:
        return Part(outcome="inconclusive", reason=reason, **shown)
    if spread is None:
        reason = "one replicate has no spread" if len(values) == 1 else "the replicates do not differ: no test exists"
        return Part(outcome="inconclusive", reason=reason, seeds=2 if len(values) == 1 else None, **shown)
    if expected == "equivalent":
        p = max(spread.p_above(-margin), spread.p_below(margin))
        against = min(1.0, 2 * min(spread.p_above(margin), spread.p_below(-margin)))
        gap = margin

        def power(effect: float, n: int) -> float:
            return power_equivalence(effect, spread.spread, n, alpha)

        needed = smallest_n(lambda n: power(max(margin - abs(mean), margin / 2), n), len(values))
        second = None
    else:
        bound = sign * than
        p, against = spread.p_above(bound), spread.p_below(bound + margin)
        gap = margin or abs(than)

        def power(effect: float, n: int) -> float:
            return power_one_sided(effect, spread.spread, n, alpha)

        # Were effect and spread as measured, the nearer of the two answers would come with this n.
        distance = max(spread.mean - bound, bound + margin - spread.mean)
        needed = smallest_n(lambda n: power(distance, n), len(values))
        second = wilcoxon([sign * v for v in values], bound, "greater")
    outcome = outcome_of(p, against, alpha)
    return Part(
        outcome=outcome,
        reason=note(outcome, spread, sign * than, margin, alpha) if expected != "equivalent" else "",
        also=also or (("Wilcoxon", second) if second is not None else None),
        p=p,
        p_against=against,
        power=power(gap, len(values)) if gap else None,
        detectable=detectable(lambda effect: power(effect, len(values)), spread.error),
        seeds=needed if outcome == "inconclusive" else None,
        **shown,
    )


def outcome_of(p: float, against: float, alpha: float) -> Outcome:
    """Supported, contradicted or inconclusive at a level."""
    return "supported" if p <= alpha else "contradicted" if against <= alpha else "inconclusive"


def note(outcome: Outcome, spread: Paired, bound: float, margin: float, alpha: float) -> str:
    """What an outcome alone would not say of the size of an effect."""
    if outcome == "supported" and margin and spread.p_below(bound + margin) <= alpha:
        return "there, but smaller than the margin"
    if outcome == "contradicted" and margin and spread.p_below(bound) > alpha:
        return "smaller than the margin"
    return ""


def paired_interval(values: Sequence[float], alpha: float) -> tuple[float | None, float | None]:
    """Student's interval of the values, or none."""
    spread = paired(values)
    return (None, None) if spread is None else spread.interval(alpha)


def shortfall(evidence: Evidence, n: int) -> str | None:
    """Why nothing is decided with these replicates: some are not done, some diverged."""
    lacking = evidence.lacking
    if lacking.diverged:
        which = "; ".join(f"{why} in replicate {r}" for r, why in sorted(lacking.diverged.items()))
        return f"diverged: {which}"
    if lacking.missing:
        return f"{n} of {evidence.planned} replicates done; {UNDONE}"
    if n < evidence.planned:
        return f"{n} of {evidence.planned} replicates have the number that is compared"
    return None


def unfinished(what: str, counts: bool, evidence: Evidence) -> Part:
    """The part of a test that has no value of any replicate yet."""
    if evidence.lacking.diverged:
        return Part(what, "inconclusive", shortfall(evidence, 0) or "", counts, keys=tuple(evidence.keys))
    return Part(what, "not run", "no replicate is done", counts)
