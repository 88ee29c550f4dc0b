"""From values, one per replicate, to the decision of a test: one rule for all tests, based on the interval that is
shown.

The interval has a level of 1 - 2 alpha, so that each of its ends errs with probability alpha. What is expected to be
greater than a number is supported where the interval lies above it, contradicted where it lies below, and negligible
where it contains the number and lies within the margin on both sides; what is expected to be equivalent is supported
where the interval lies within the margins, and contradicted where it lies outside. All else is inconclusive. Whatever
the truth, support and contradiction are never both likelier than alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from lthbench.analysis.claims.evidence import Evidence
from lthbench.analysis.claims.verdict import Effect, Outcome, Outlook, PartResult, PValues
from lthbench.analysis.stats.paired import (
    MAX_REPLICATES,
    Paired,
    detectable,
    half_width,
    paired,
    power_equivalence,
    power_one_sided,
    wilcoxon,
)

T = "paired t, one-sided"
# How the reason ends where replicates are missing.
UNDONE = "decided when all are"
TOST = "two one-sided paired t"
# Makes a finding from an effect and the number of its values.
Telling = Callable[[Effect, str], str]


def decide(
    values: Sequence[float],
    expected: str,
    evidence: Evidence,
    alpha: float,
    *,
    what: str,
    tell: Telling,
    counts: bool = True,
    unit: str = "",
    than: float = 0.0,
    margin: float = 0.0,
    test: str = T,
    also: tuple[str, float] | None = None,
    done: int | None = None,
) -> PartResult:
    """The result for values, one per replicate, that are expected to be greater or less than a number, or equivalent.

    Args:
        done: the number of replicates, if the values are not one per replicate.
    """
    keys = tuple(evidence.keys)
    if not values:
        return unfinished(what, counts, evidence)
    sign = -1.0 if expected == "less" else 1.0
    spread = paired([sign * v for v in values])
    effect = Effect(math.fsum(values) / len(values), *paired_interval(values, alpha), unit, 1 - 2 * alpha)
    shown: dict[str, Any] = {
        "what": what, "counts": counts, "effect": effect, "n": len(values), "keys": keys,
        "test": TOST if expected == "equivalent" else test, "margin": margin or abs(than) or None,
        "finding": tell(effect, f"n = {len(values)}" if done is None else f"{len(values)} configurations"),
    }  # fmt: skip
    if (reason := shortfall(evidence, len(values) if done is None else done)) is not None:
        return PartResult(outcome="inconclusive", reason=reason, **shown)
    if spread is None:
        reason = "one replicate has no spread" if len(values) == 1 else "the replicates do not differ: no test exists"
        return PartResult(outcome="inconclusive", reason=reason, **shown)
    bound, gap = sign * than, margin or abs(than)
    p_values = rule(spread, expected, bound, margin)
    outcome = outcome_of(p_values, alpha)

    def power(size: float) -> float:
        of = power_equivalence if expected == "equivalent" else power_one_sided
        return of(size, spread.spread, len(values), alpha)

    second = None if expected == "equivalent" else wilcoxon([sign * v for v in values], bound, "greater")
    return PartResult(
        outcome=outcome,
        reason=_note(outcome, spread, expected, bound, margin, alpha),
        also=also or (("Wilcoxon", second) if second is not None else None),
        p_values=p_values,
        power=power(gap) if gap else None,
        detectable=detectable(power, spread.error),
        outlook=outlook(spread, gap, alpha, unit, bool(margin) and expected != "equivalent")
        if outcome == "inconclusive" and done is None
        else None,
        **shown,
    )


def rule(spread: Paired, expected: str, bound: float, margin: float) -> PValues:
    """The p of each outcome: an interval of 1 - 2 alpha decides for it if its p is at most alpha.

    Args:
        spread: of values whose sign is such that a directional claim expects them to be greater.
        bound: what they are to be greater than.
    """
    if expected == "equivalent":
        return PValues(
            supported=max(spread.p_above(-margin), spread.p_below(margin)),
            contradicted=min(spread.p_above(margin), spread.p_below(-margin)),
        )
    within = max(spread.p_above(bound - margin), spread.p_below(bound + margin)) if margin else None
    return PValues(spread.p_above(bound), spread.p_below(bound), within)


def outcome_of(p: PValues, alpha: float) -> Outcome:
    """The outcome that p values decide at a level."""
    if p.supported is not None and p.supported <= alpha:
        return "supported"
    if p.contradicted is not None and p.contradicted <= alpha:
        return "contradicted"
    return "negligible" if p.negligible is not None and p.negligible <= alpha else "inconclusive"


def of_all(parts: Sequence[PartResult]) -> PValues:
    """The p values of parts that must all hold (an intersection-union test).

    Support needs every part. For the other outcomes a single part that does not hold is enough, at a share of the
    level: the smallest p times the number of parts. A part that holds does not count against the whole for being small.
    """

    def smallest(of: Sequence[float | None]) -> float | None:
        known = [p for p in of if p is not None]
        return min(1.0, len(parts) * min(known)) if known else None

    open_ones = [part.p_values for part in parts if part.outcome != "supported"]
    all_known = [part.p_values.supported for part in parts if part.p_values.supported is not None]
    return PValues(
        supported=max(all_known) if parts and len(all_known) == len(parts) else None,
        contradicted=smallest([p.contradicted for p in open_ones]),
        negligible=smallest([p.negligible for p in open_ones]),
    )


def decisive(parts: Sequence[PartResult], outcome: Outcome) -> int | None:
    """The index of the part that decides an outcome: the one that fails, or else the one that supports least."""
    known = [i for i, part in enumerate(parts) if part.counts and part.effect is not None]
    known = known or [i for i, part in enumerate(parts) if part.effect is not None]
    if not known:
        return None
    at_fault = [i for i in known if parts[i].outcome == outcome]
    if outcome in ("contradicted", "negligible") and at_fault:
        return min(at_fault, key=lambda i: parts[i].p or 0.0)
    open_ones = [i for i in known if parts[i].outcome != "supported"] or known
    return max(open_ones, key=lambda i: parts[i].p_values.supported or 0.0)


def paired_interval(values: Sequence[float], alpha: float) -> tuple[float | None, float | None]:
    """Student's interval of the values at 1 - 2 alpha, or None."""
    spread = paired(values)
    return (None, None) if spread is None else spread.interval(alpha)


def _note(outcome: Outcome, spread: Paired, expected: str, bound: float, margin: float, alpha: float) -> str:
    """A remark on the size of an effect, beyond the outcome."""
    if expected == "equivalent" or not margin:
        return ""
    if outcome == "supported" and spread.p_below(bound + margin) <= alpha:
        return f"smaller than the margin of {margin:g}"
    return f"within {margin:g} on both sides" if outcome == "negligible" else ""


def outlook(spread: Paired, gap: float, alpha: float, unit: str, decides: bool = False, num_pairs: int = 1) -> Outlook:
    """What more replicates would give with this spread.

    Args:
        gap: the margin, or how far the bound lies from 0; 0 where there is neither.
        decides: whether an interval narrower than the margin decides wherever it lies.
        num_pairs: how many pairs there are, among which Holm's adjustment may give this one the smallest share of
            alpha.
    """
    now = half_width(spread.spread, spread.n, alpha)
    last = max(MAX_REPLICATES, spread.n + 1)
    widths = {n: half_width(spread.spread, n, alpha / num_pairs) for n in range(spread.n + 1, last + 1)}
    wanted = next((n for n, width in widths.items() if width <= gap / 2), None)
    then = widths[wanted or last]

    def told(width: float) -> str:
        return f"±{width:.2g} {unit}".rstrip()

    at = f" at the level that Holm's adjustment over {num_pairs} pairs may leave" if num_pairs > 1 else ""
    text = f"half width {told(now)} now; at this spread {told(then)} with n = {wanted or last}{at}"
    if wanted is not None:
        text += ", half the margin, which decides " + (
            "wherever it lies" if decides else "unless the effect is as near to it"
        )
    elif gap:
        text += f": no n up to {last} is sure to decide"
    else:
        text += "; without a margin no n can be named that decides"
    return Outlook(now, wanted, then, text, spread, gap, decides)


def among_pairs(part: PartResult, alpha: float, num_pairs: int) -> Outlook | None:
    """The outlook of a part if its claim is about several pairs."""
    if part.outlook is None or part.effect is None:
        return None
    of = part.outlook
    return outlook(of.spread, of.gap, alpha, part.effect.unit, of.decides, num_pairs)


def failures(evidence: Evidence) -> str:
    """What has no value since a training failed, in words; empty if nothing has."""
    return "; ".join(f"{why} in replicate {r}" for r, why in sorted(evidence.lacking.failed.items()))


def shortfall(evidence: Evidence, n: int) -> str | None:
    """Why nothing is decided with these replicates: some are not done, some failed."""
    lacking = evidence.lacking
    if why := failures(evidence):
        return why
    if lacking.missing:
        return f"{n} of {evidence.planned} replicates done; {UNDONE}"
    if n < evidence.planned:
        return f"{n} of {evidence.planned} replicates have the number that is compared"
    return None


def unfinished(what: str, counts: bool, evidence: Evidence) -> PartResult:
    """The part of a test that has no value of any replicate yet."""
    if why := failures(evidence):
        return PartResult(what, "inconclusive", why, counts, keys=tuple(evidence.keys))
    return PartResult(what, "not run", "no replicate is done", counts)
