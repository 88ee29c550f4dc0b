"""Verdicts of one claim over several pairs: Holm's adjustment, what it leaves of each, and one verdict on all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from lthbench.analysis.decide import UNDONE, outcome_of
from lthbench.analysis.paired import exact_fraction, holm
from lthbench.analysis.verdict import Outcome, Part, Verdict
from lthbench.suite.claims import Claim


def adjusted(verdicts: dict[str, Verdict], absent: Collection[str], alpha: float) -> dict[str, Verdict]:
    """The verdicts of one claim with Holm's adjustment over its pairs, and so their outcomes.

    A pair that is planned counts, run or not; one where the suite does not measure the claim (`absent`) does not.
    """
    names = list(verdicts)
    family = max(1, len(verdicts) - len(absent))
    p_values = holm([verdicts[name].p for name in names], family)
    against = holm([verdicts[name].p_against for name in names], family)
    result = {}
    for name, p, q in zip(names, p_values, against, strict=True):
        verdict = replace(verdicts[name], adjusted_p=p, adjusted_against=q)
        if verdict.outcome != "not run":
            outcome = outcome_of(1.0 if p is None else p, 1.0 if q is None else q, alpha)
            verdict = replace(verdict, outcome=outcome, **_why(verdict, outcome, alpha, family))
        result[name] = verdict
    return result


def _why(verdict: Verdict, outcome: str, alpha: float, num_pairs: int) -> dict[str, Any]:
    counting = [part for part in verdict.parts if part.counts]
    if not counting:
        return {"reason": "reported only: no direction is stated"}
    if outcome == "supported":
        return {"reason": "; ".join(dict.fromkeys(part.reason for part in counting if part.reason))}
    if outcome == "contradicted":
        at_fault = [part for part in counting if part.outcome == "contradicted"]
        return {"reason": "; ".join(part.what + (f" ({part.reason})" if part.reason else "") for part in at_fault)}
    open_ones = [part for part in counting if part.outcome != "supported"]
    if not open_ones:
        return {"reason": f"holds alone, but not after Holm's adjustment over {num_pairs} pairs"}
    undone = [part.reason for part in open_ones if part.reason.endswith(UNDONE)]
    if undone:
        return {"reason": undone[0]}
    seeds = [part.seeds for part in open_ones]
    needed = max((s for s in seeds if s is not None), default=None) if None not in seeds else None
    shown = [part.what + (f": {part.reason}" if part.reason else "") for part in open_ones]
    return {"reason": "; ".join(shown), "seeds": needed}


def over_all(name: str, claim: Claim, verdicts: list[Verdict], absent: Collection[str], alpha: float) -> Verdict:
    """One verdict over all pairs: how many support the claim, with the exact interval of that fraction."""
    parts = tuple(
        Part(
            what=v.pair or "", outcome=v.outcome, reason=v.reason, test="Holm over pairs", effect=v.effect,
            p=v.adjusted_p, p_against=v.adjusted_against, n=v.n, seeds=v.seeds, keys=v.keys,
        )
        for v in verdicts
    )  # fmt: skip
    ran = [v for v in verdicts if v.outcome != "not run"]
    count = {kind: sum(v.outcome == kind for v in ran) for kind in ("supported", "contradicted", "inconclusive")}
    base = Verdict(
        claim=name, sentence=claim.sentence, origin=claim.origin, pair=None, outcome="not run", reason="on no pair",
        n=len(ran), planned=len(verdicts), parts=parts,
    )  # fmt: skip
    if not ran:
        reasons = dict.fromkeys(v.reason for v in verdicts)
        reason = "on no pair: " + "; ".join(reasons) if len(reasons) == 1 else "on no pair"
        command = next((v.command.replace(f" --pair {v.pair}", "") for v in verdicts if v.command), None)
        return replace(base, reason=reason, command=command)
    low, high = exact_fraction(count["supported"], len(ran), alpha)
    reason = f"supported on {count['supported']} of {len(ran)} pairs run ({low:.0%} to {high:.0%})"
    if count["contradicted"]:
        reason += f", contradicted on {count['contradicted']}"
    planned = len(verdicts) - len(absent)
    enough = planned if claim.over_pairs == "every" else min(2, planned)
    too_many = 1 if claim.over_pairs == "every" else planned - enough + 1
    outcome: Outcome = (
        "supported"
        if count["supported"] >= enough
        else "contradicted"
        if count["contradicted"] >= too_many
        else "inconclusive"
    )
    return replace(base, outcome=outcome, reason=reason)
