"""From what a suite measured to the verdicts on its claims: pair by pair, then over all pairs."""

from __future__ import annotations

import fnmatch
import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from lthbench.analysis.claims.across_pairs import adjusted, over_all
from lthbench.analysis.claims.configuration_tests import agreement, rank
from lthbench.analysis.claims.decide import UNDONE, of_all, outcome_of
from lthbench.analysis.claims.evidence import (
    Classes,
    Evidence,
    NoArm,
    NoSelection,
    NotPlanned,
    Unfinished,
    stated_classes,
)
from lthbench.analysis.claims.looks import Look, looked_before, read_looks
from lthbench.analysis.claims.replicate_tests import contrast, mixed, onset, trend, waiting
from lthbench.analysis.claims.verdict import SILENT, Effect, More, Outcome, PartResult, PValues, Verdict
from lthbench.analysis.points import MeasuredPoint, costs, points, replicate_cost
from lthbench.suite.claim_names import needed_kinds
from lthbench.suite.claim_tests import Cost, OtherClaim
from lthbench.suite.claims import Claim
from lthbench.suite.plan import Plan, kinds_of
from lthbench.suite.schema import Suite
from lthbench.tasks.store import Store

ALPHA = 0.05

_TESTS: dict[str, Callable[[Any, Evidence, float], PartResult]] = {
    "contrast": contrast,
    "onset": onset,
    "waiting": waiting,
    "trend": trend,
    "rank": rank,
    "mixed": mixed,
    "agreement": agreement,
}

# The end of the reason if something is planned only when others are done.
YET = " yet"

Gap = Literal["", "absent", "unfinished"]
# Pair, kind of experiment -> what it costs for one arm and replicate, in trainings of the dense network.
Costs = Mapping[tuple[str, str], float]


def verdicts(plan: Plan, store: Store, path: str) -> list[Verdict]:
    """The verdicts on the claims of a whole suite's plan, from its results in the store."""
    looks = read_looks(store)
    return judge(
        plan.suite, points(plan, store), costs(plan), path, looks, lambda *of: replicate_cost(plan, store, *of)
    )


def judge(
    suite: Suite,
    measured: Iterable[MeasuredPoint],
    prices: Costs,
    path: str,
    looks: Sequence[Look] = (),
    price: Callable[[str, Collection[str]], tuple[int, float | None]] | None = None,
) -> list[Verdict]:
    """The verdicts on a suite's claims: for each claim, its pairs, then all of them where there are several.

    Over its pairs, each outcome of a claim has an error rate of 5 %, divided by the suite's `looks`; nothing is decided
    before all planned replicates are done, so looks in between cost nothing.

    Args:
        path: of the suite, for commands.
        looks: those taken before, with any number of replicates.
        price: the trainings and hours of a replicate, for a pair and experiments.
    """
    alpha = level_of(suite)
    by_pair: dict[str, list[MeasuredPoint]] = defaultdict(list)
    for point in measured:
        by_pair[point.pair].append(point)
    evidence = {name: Evidence(name, pair, suite.tested(), by_pair[name]) for name, pair in suite.pairs.items()}
    classes = {name: own.measured_classes() for name, own in evidence.items()}
    by_claim: dict[str, dict[str, Verdict]] = {}
    lacking: dict[str, set[str]] = {}
    for name, claim in suite.claims.items():
        verdicts, absent = {}, set()
        for pair_name, own in evidence.items():
            if not any(fnmatch.fnmatch(pair_name, pattern) for pattern in claim.pairs):
                continue
            others = {other: found[pair_name] for other, found in by_claim.items() if pair_name in found}
            verdict, is_absent = _on_pair(name, claim, own, classes[pair_name], others, prices, alpha, path)
            verdicts[pair_name] = verdict
            absent |= {pair_name} if is_absent else set()
        decided = adjusted(verdicts, absent, alpha)
        by_claim[name] = {
            pair: _with_more(_with_looks(verdict, looks, alpha), evidence[pair], claim, path, price)
            for pair, verdict in decided.items()
        }
        lacking[name] = absent
    found: list[Verdict] = []
    for name, claim in suite.claims.items():
        found += by_claim[name].values()
        if len(by_claim[name]) > 1:
            found.append(over_all(name, claim, list(by_claim[name].values()), lacking[name], alpha))
    return found


def level_of(suite: Suite) -> float:
    """The level of a suite's verdicts: how often each end of an interval errs."""
    return ALPHA / suite.looks


def _with_looks(verdict: Verdict, looks: Sequence[Look], alpha: float) -> Verdict:
    """The verdict, with a caution if its numbers were seen before and no share of the error rate was reserved for
    that."""
    before = looked_before(verdict, looks)
    spent = alpha + sum(before.values())
    if not before or verdict.outcome in SILENT:
        return verdict
    verdict = replace(verdict, looks=tuple(before))
    if spent <= ALPHA + 1e-9:
        return verdict
    said = (
        f"uncorrected look: seen before with {', '.join(map(str, before))} replicates planned, and no `looks` kept a "
        f"share of the error rate for that; an outcome may err in {100 * spent:.2g} %"
    )
    return replace(verdict, caution=said)


def _with_more(
    verdict: Verdict,
    evidence: Evidence,
    claim: Claim,
    path: str,
    price: Callable[[str, Collection[str]], tuple[int, float | None]] | None,
) -> Verdict:
    """The verdict, with the cost of more replicates if some number of them is sure to decide it."""
    if price is None or verdict.outlook is None or verdict.outlook.n is None:
        return verdict
    further = verdict.outlook.n - verdict.planned
    trainings, hours = price(evidence.name, _labels(evidence, claim))
    more = More(
        verdict.outlook.n,
        further,
        _command(path, evidence, claim),
        trainings * further,
        None if hours is None else hours * further,
    )
    return replace(verdict, more=more)


def _on_pair(
    name: str,
    claim: Claim,
    evidence: Evidence,
    measured: Classes,
    others: Mapping[str, Verdict],
    prices: Costs,
    alpha: float,
    path: str,
) -> tuple[Verdict, bool]:
    """The verdict on one pair, before the adjustment over pairs; and whether the suite cannot give one."""
    evidence.classes = measured if claim.classes == "measured" else stated_classes(evidence.pair)
    there = kinds_of(evidence.pair)
    evidence.experiments = frozenset(label for kind in claim.experiments for label in there.get(kind, ()))
    parts, gaps = [], set[Gap]()
    for test in claim.tests:
        part, gap = part_of(test, claim, evidence, others, prices, alpha)
        parts.append(part)
        gaps.add(gap)
    counting = [part for part in parts if part.counts]
    absent = [kind for kind in needed_kinds(claim) if kind not in there]
    done = [part.n if part.of == "replicates" else evidence.planned for part in counting or parts if part.n]
    base = Verdict(
        claim=name, sentence=claim.sentence, origin=claim.origin, pair=evidence.name, outcome="inconclusive",
        reason="", p_alone=of_all(counting), n=min(done, default=0), planned=evidence.planned,
        arms=str(evidence.classes), parts=tuple(parts),
    )  # fmt: skip
    if gaps - {""}:
        lacks = _lacks(path, evidence, absent, parts) if "absent" in gaps else ""
        base = replace(base, command=_command(path, evidence, claim), lacks=lacks)
    silent = [part for part in counting or parts if part.outcome in SILENT]
    if len(silent) == len(counting or parts):
        outcome: Outcome = "not applicable" if any(part.outcome == "not applicable" for part in silent) else "not run"
        reason = next(part.reason for part in silent if part.outcome == outcome)
        if outcome == "not run" and absent:
            reason = f"the suite has no {', '.join(absent)}"
        return replace(base, outcome=outcome, reason=reason), outcome == "not applicable" or "absent" in gaps
    beside = [part.reason for part in silent if part.outcome == "not applicable"]
    if beside and outcome_of(base.p_alone, alpha) == "inconclusive":
        # The rest is not evidence for a claim that says more.
        return replace(base, outcome="not applicable", reason=beside[0]), True
    return base, False


def part_of(
    test: Any, claim: Claim, evidence: Evidence, others: Mapping[str, Verdict], prices: Costs, alpha: float
) -> tuple[PartResult, Gap]:
    """The result of a test, and whether something that it needs is absent from the suite, or planned but not done."""
    evidence.fresh()
    if isinstance(test, OtherClaim):
        return _of_claim(test, others), ""
    all_there = set(needed_kinds(claim)) <= set(kinds_of(evidence.pair))
    try:
        if isinstance(test, Cost):
            return _cost(test, evidence, prices), ""
        evidence.choose(claim.choose)
        found = _TESTS[test.test](test, evidence, alpha)
    except NotPlanned as error:
        # Some measurements are planned only when others are done: the steps of a bisection, what matches a distance.
        if all_there and evidence.is_unfinished():
            return PartResult(test.what, "not run", f"{error}{YET}", test.counts), "unfinished"
        return PartResult(test.what, "not run", str(error), test.counts), "absent"
    except NoArm as error:
        if not all_there:
            return PartResult(test.what, "not run", str(error), test.counts), "absent"
        return PartResult(test.what, "not applicable", str(error), test.counts), ""
    except NoSelection as error:
        return PartResult(test.what, "not run", str(error), test.counts), ""
    except Unfinished as error:
        return PartResult(test.what, "not run", f"waits for {error} to be done", test.counts), "unfinished"
    if evidence.chosen is not None and "{chosen}" in test.model_dump_json():
        found = replace(found, reason="; ".join(filter(None, (found.reason, f"chosen: {evidence.chosen}"))))
    return found, "unfinished" if evidence.lacking.missing else ""


def _of_claim(test: OtherClaim, others: Mapping[str, Verdict]) -> PartResult:
    verdict = others.get(test.claim)
    if verdict is None:
        return PartResult(test.what, "not run", f"{test.claim} is not about this pair", test.counts)
    return PartResult(
        what=test.what, outcome=verdict.outcome, reason=verdict.reason, counts=test.counts, test=f"as {test.claim}",
        effect=verdict.effect, p_values=verdict.p_alone, n=verdict.n, keys=verdict.keys, finding=verdict.finding,
    )  # fmt: skip


def _cost(test: Cost, evidence: Evidence, prices: Costs) -> PartResult:
    measured = [prices[evidence.name, kind] for kind in test.experiments if (evidence.name, kind) in prices]
    if not measured:
        raise NotPlanned(f"none of {', '.join(test.experiments)}")
    ratio = max(measured)
    effect = Effect(ratio, unit="trainings")
    finding = f"one arm and replicate of {' and '.join(test.experiments)} costs {ratio:.1f} trainings"
    if evidence.is_unfinished():
        reason = f"counted so far; {UNDONE}"
        return PartResult(test.what, "inconclusive", reason, test.counts, "count", effect, finding=finding)
    # A count has no error: it is either above the bound or not.
    p_values = PValues(float(ratio < test.than), float(ratio >= test.than))
    return PartResult(
        test.what, outcome_of(p_values, ALPHA), "", test.counts, "count", effect, p_values=p_values,
        n=evidence.planned, finding=finding,
    )  # fmt: skip


def _lacks(path: str, evidence: Evidence, absent: list[str], parts: list[PartResult]) -> str:
    """What the user's suite lacks for a claim on a pair."""
    if absent:
        return f"add {', '.join(absent)} to the experiments of {evidence.name} in {path}"
    missing = dict.fromkeys(part.reason for part in parts if part.outcome == "not run")
    return f"let {evidence.name} in {path} measure what is missing: {'; '.join(missing)}"


def _command(path: str, evidence: Evidence, claim: Claim) -> str:
    """The command that runs what a claim lacks on a pair of the user's own suite."""
    options = [word for label in _labels(evidence, claim) for word in ("--only", label)]
    return shlex.join(["lthbench", "run", path, "--pair", evidence.name, *options])


def _labels(evidence: Evidence, claim: Claim) -> list[str]:
    """The pair's names of the experiments that a claim reads; for those that it lacks, the kinds."""
    there = kinds_of(evidence.pair)
    return list(dict.fromkeys(label for kind in claim.experiments for label in there.get(kind, (kind,))))
