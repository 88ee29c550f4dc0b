"""Verdicts of one claim over several pairs: Holm's adjustment of each, and one verdict on all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from lthbench.analysis.claims.decide import UNDONE, among_pairs, decisive, outcome_of
from lthbench.analysis.claims.verdict import DECIDED, SILENT, Outcome, PartResult, PValues, Verdict
from lthbench.analysis.stats.paired import exact_fraction, holm
from lthbench.suite.claims import Claim


def adjusted(verdicts: dict[str, Verdict], absent: Collection[str], alpha: float) -> dict[str, Verdict]:
    """The verdicts of one claim with Holm's adjustment over its pairs, and so their outcomes.

    Every planned pair counts, whether it has run or not, except those where the suite does not measure the claim or has
    nothing that the claim is about (`absent`).
    """
    alone = [verdict.p_alone for verdict in verdicts.values()]
    family = max(1, len(verdicts) - len(absent))
    columns = [holm([p.of(outcome) for p in alone], family) for outcome in DECIDED]
    result = {}
    for name, *p_values in zip(verdicts, *columns, strict=True):
        verdict = replace(verdicts[name], p_values=PValues(*p_values))
        if verdict.outcome not in SILENT:
            outcome = outcome_of(verdict.p_values, alpha)
            at = decisive(verdict.parts, outcome)
            finding = "" if at is None else verdict.parts[at].finding
            reason = _why(verdict, outcome, alpha, family)
            verdict = replace(verdict, outcome=outcome, decisive=at, finding=finding, **reason)
        result[name] = verdict
    return result


def _why(verdict: Verdict, outcome: Outcome, alpha: float, num_pairs: int) -> dict[str, Any]:
    """Further remarks on an outcome, and on an open one what more replicates would give."""
    counting = [part for part in verdict.parts if part.counts]
    if not counting:
        return {"reason": "reported only: no direction is stated"}
    if outcome in ("contradicted", "negligible"):
        counting = [part for part in counting if part.outcome == outcome] or counting
    if outcome != "inconclusive":
        return {"reason": "; ".join(dict.fromkeys(part.reason for part in counting if part.reason))}
    if (alone := outcome_of(verdict.p_alone, alpha)) != "inconclusive":
        holds = "holds" if alone == "supported" else alone
        return {"reason": f"{holds} alone, but not after Holm's adjustment over {num_pairs} pairs"}
    open_ones = [part for part in counting if part.outcome != "supported"]
    undone = [part.reason for part in open_ones if part.reason.endswith(UNDONE)]
    if undone:
        return {"reason": undone[0]}
    notes = [_state(part, len(counting)) for part in open_ones]
    shown = (
        notes
        if len(counting) == 1
        else [
            f"not decided whether {part.what}" + (f" ({note})" if note else "")
            for part, note in zip(open_ones, notes, strict=True)
        ]
    )
    outlooks = [found for part in open_ones if (found := among_pairs(part, alpha, num_pairs)) is not None]
    # The part that needs the most replicates speaks for all of them; one that no n decides comes first.
    outlook = max(outlooks, key=lambda o: (o.n is None, o.n or 0, o.half_width_then), default=None)
    return {"reason": "; ".join(filter(None, shown)), "outlook": outlook}


def _state(part: PartResult, num_parts: int) -> str:
    """Remarks on a part that is not supported, in a claim that is open."""
    if part.outcome in ("contradicted", "negligible"):
        part_alone = f"{part.outcome} alone, but not among {num_parts} parts"
        return f"{part_alone}; {part.reason}" if part.reason else part_alone
    return part.reason


def over_all(name: str, claim: Claim, verdicts: list[Verdict], absent: Collection[str], alpha: float) -> Verdict:
    """One verdict over all pairs, by one rule for every outcome: as many pairs must have it as the claim asks for.

    A claim about every pair has an outcome if all planned pairs have it; a claim about several, if two have it and
    fewer have the opposite one.
    """
    parts = tuple(
        PartResult(
            what=v.pair or "", outcome=v.outcome, reason=v.reason, test="Holm over pairs", effect=v.effect,
            p_values=v.p_values, n=v.n, keys=v.keys, finding=v.finding,
        )
        for v in verdicts
    )  # fmt: skip
    ran = [v for v in verdicts if v.outcome not in SILENT]
    outcome: Outcome
    base = Verdict(
        claim=name, sentence=claim.sentence, origin=claim.origin, pair=None, outcome="not run", reason="on no pair",
        n=len(ran), planned=len(verdicts), parts=parts,
    )  # fmt: skip
    if not ran:
        reasons = dict.fromkeys(v.reason for v in verdicts)
        reason = "on no pair: " + "; ".join(reasons) if len(reasons) == 1 else "on no pair"
        command = next((v.command.replace(f" --pair {v.pair}", "") for v in verdicts if v.command), None)
        lacks = "; ".join(dict.fromkeys(v.lacks for v in verdicts if v.lacks))
        outcome = "not run" if any(v.outcome == "not run" for v in verdicts) else "not applicable"
        return replace(base, outcome=outcome, reason=reason, command=command, lacks=lacks)
    counts = {kind: sum(v.outcome == kind for v in ran) for kind in DECIDED}
    low, high = exact_fraction(counts["supported"], len(ran), alpha)
    finding = f"supported on {counts['supported']} of {len(ran)} pairs ({low:.0%} to {high:.0%})"
    finding += "".join(f", {kind} on {counts[kind]}" for kind in ("contradicted", "negligible") if counts[kind])
    planned = len(verdicts) - len(absent)
    rests = f"rests on {len(ran)} of the {planned} pairs that the suite can decide it on"
    enough = planned if claim.over_pairs == "every" else min(2, planned)
    reached = [kind for kind, count in counts.items() if count >= enough]
    outcome = "inconclusive" if not reached or {"supported", "contradicted"} <= set(reached) else reached[0]
    return replace(base, outcome=outcome, finding=finding, reason=rests)
