"""From what a suite measured to the verdicts on its claims: pair by pair, then over all pairs."""

from __future__ import annotations

import fnmatch
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

from lthbench.analysis.configurations import agreement, rank
from lthbench.analysis.decide import UNDONE, outcome_of
from lthbench.analysis.evidence import Evidence, NoArm, NoSelection, NotPlanned, Unfinished, named_classes
from lthbench.analysis.over_pairs import adjusted, over_all
from lthbench.analysis.parts import contrast, mixed, onset, trend, waiting
from lthbench.analysis.points import Point, costs, points
from lthbench.analysis.verdict import Effect, Part, Verdict
from lthbench.runner.store import Store
from lthbench.suite.claim_tests import Cost, OtherClaim
from lthbench.suite.claims import Claim
from lthbench.suite.plan import Plan, kinds_of
from lthbench.suite.schema import Suite

ALPHA = 0.05
# Of the suite that has the experiments of every claim.
WHOLE_SUITE = "suites/paper.yaml"

_TESTS: dict[str, Callable[[Any, Evidence, float], Part]] = {
    "contrast": contrast,
    "onset": onset,
    "waiting": waiting,
    "trend": trend,
    "rank": rank,
    "mixed": mixed,
    "agreement": agreement,
}

Gap = Literal["", "absent", "unfinished"]
# Pair, kind of experiment -> what it costs for one arm and replicate, in trainings of the dense network.
Costs = Mapping[tuple[str, str], float]


def verdicts(plan: Plan, store: Store, path: str) -> list[Verdict]:
    """The verdicts on the claims of a whole suite's plan, from what the store has of it."""
    return judge(plan.suite, points(plan, store), costs(plan), path)


def judge(suite: Suite, measured: Iterable[Point], prices: Costs, path: str) -> list[Verdict]:
    """The verdicts on a suite's claims: for each claim, its pairs, then all of them where there are several.

    The error rate of a claim over its pairs is 5 %, divided by the suite's `looks`; nothing is decided before all
    planned replicates are done, so looking in between costs nothing.

    Args:
        path: of the suite, for commands.
    """
    alpha = ALPHA / suite.looks
    by_pair: dict[str, list[Point]] = defaultdict(list)
    for point in measured:
        by_pair[point.pair].append(point)
    evidence = {name: Evidence(name, pair, suite.replicates, by_pair[name]) for name, pair in suite.pairs.items()}
    rules = {name: own.measured_classes() for name, own in evidence.items()}
    by_claim: dict[str, dict[str, Verdict]] = {}
    lacking: dict[str, set[str]] = {}
    for name, claim in suite.claims.items():
        verdicts, absent = {}, set()
        for pair_name, own in evidence.items():
            if not any(fnmatch.fnmatch(pair_name, pattern) for pattern in claim.pairs):
                continue
            others = {other: found[pair_name] for other, found in by_claim.items() if pair_name in found}
            verdict, is_absent = _on_pair(name, claim, own, rules[pair_name], others, prices, alpha, path)
            verdicts[pair_name] = verdict
            absent |= {pair_name} if is_absent else set()
        by_claim[name] = adjusted(verdicts, absent, alpha)
        lacking[name] = absent
    found: list[Verdict] = []
    for name, claim in suite.claims.items():
        found += by_claim[name].values()
        if len(by_claim[name]) > 1:
            found.append(over_all(name, claim, list(by_claim[name].values()), lacking[name], alpha))
    return found


def _on_pair(
    name: str,
    claim: Claim,
    evidence: Evidence,
    rule: tuple[Mapping[str, tuple[str, ...]], str],
    others: Mapping[str, Verdict],
    prices: Costs,
    alpha: float,
    path: str,
) -> tuple[Verdict, bool]:
    """The verdict on one pair, but for the adjustment over pairs; and whether the suite cannot give one."""
    by_name = claim.classes == "names"
    evidence.classes, how = (named_classes(evidence.pair), "by name") if by_name else rule
    arms = "; ".join(f"{kind}: {', '.join(names) or 'none'}" for kind, names in evidence.classes.items()) + f" ({how})"
    there = kinds_of(evidence.pair)
    evidence.experiments = frozenset(label for kind in claim.experiments for label in there.get(kind, ()))
    parts, gaps = [], set[Gap]()
    for test in claim.tests:
        part, gap = _part(test, claim, evidence, others, prices, alpha)
        parts.append(part)
        gaps.add(gap)
    counting = [part for part in parts if part.counts]
    absent = [kind for kind in claim.experiments if kind not in there]
    p, against = None, None
    if counting and all(part.p is not None for part in counting):
        p = max(part.p for part in counting if part.p is not None)
    # A part that holds is not held against the claim, even if it is smaller than its margin.
    known = [part.p_against for part in counting if part.p_against is not None and part.outcome != "supported"]
    if known:
        against = min(1.0, len(counting) * min(known))
    done = [part.n if part.of == "replicates" else evidence.planned for part in counting or parts if part.n]
    base = Verdict(
        claim=name, sentence=claim.sentence, origin=claim.origin, pair=evidence.name, outcome="inconclusive",
        reason="", p=p, p_against=against, n=min(done, default=0), planned=evidence.planned,
        arms=arms, parts=tuple(parts), decisive=_decisive(parts),
    )  # fmt: skip
    if gaps - {""}:
        base = replace(base, command=_command(path, evidence, claim, is_whole="absent" not in gaps))
    if all(part.outcome == "not run" for part in counting or parts):
        reason = f"the suite has no {', '.join(absent)}" if absent else parts[0].reason
        return replace(base, outcome="not run", reason=reason), "absent" in gaps
    return base, False


def _part(
    test: Any, claim: Claim, evidence: Evidence, others: Mapping[str, Verdict], prices: Costs, alpha: float
) -> tuple[Part, Gap]:
    """The part of a test, and whether something it needs is absent from the suite, or planned but not done."""
    evidence.fresh()
    if isinstance(test, OtherClaim):
        return _of_claim(test, others), ""
    all_there = set(claim.experiments) <= set(kinds_of(evidence.pair))
    try:
        if isinstance(test, Cost):
            return _cost(test, evidence, prices), ""
        evidence.choose(claim.choose)
        found = _TESTS[test.test](test, evidence, alpha)
    except NotPlanned as error:
        # Some readings are planned only when others are done: the steps of a bisection, what matches a distance.
        if all_there and evidence.is_unfinished():
            return Part(test.what, "not run", f"{error} yet", test.counts), "unfinished"
        return Part(test.what, "not run", str(error), test.counts), "absent"
    except NoArm as error:
        if not all_there:
            return Part(test.what, "not run", str(error), test.counts), "absent"
        return Part(test.what, "inconclusive", str(error), test.counts, n=evidence.planned), ""
    except NoSelection as error:
        return Part(test.what, "not run", str(error), test.counts), ""
    except Unfinished as error:
        return Part(test.what, "not run", f"waits for {error} to be done", test.counts), "unfinished"
    if evidence.chosen is not None and "{chosen}" in test.model_dump_json():
        found = replace(found, reason="; ".join(filter(None, (found.reason, f"chosen: {evidence.chosen}"))))
    return found, "unfinished" if evidence.lacking.missing else ""


def _of_claim(test: OtherClaim, others: Mapping[str, Verdict]) -> Part:
    verdict = others.get(test.claim)
    if verdict is None:
        return Part(test.what, "not run", f"{test.claim} is not about this pair", test.counts)
    return Part(
        what=test.what, outcome=verdict.outcome, reason=verdict.reason, counts=test.counts, test=f"as {test.claim}",
        effect=verdict.effect, p=verdict.p, p_against=verdict.p_against, n=verdict.n, seeds=verdict.seeds,
        keys=verdict.keys,
    )  # fmt: skip


def _cost(test: Cost, evidence: Evidence, prices: Costs) -> Part:
    measured = [prices[evidence.name, kind] for kind in test.experiments if (evidence.name, kind) in prices]
    if not measured:
        raise NotPlanned(f"none of {', '.join(test.experiments)}")
    ratio = max(measured)
    if evidence.is_unfinished():
        return Part(
            test.what,
            "inconclusive",
            f"counted so far; {UNDONE}",
            test.counts,
            "count",
            Effect(ratio, unit="trainings"),
        )
    # A count has no error: it is above the bound or not.
    p = float(ratio < test.than)
    effect = Effect(ratio, unit="trainings")
    outcome = outcome_of(p, 1 - p, ALPHA)
    return Part(test.what, outcome, "", test.counts, "count", effect, p=p, p_against=1 - p, n=evidence.planned)


def _decisive(parts: list[Part]) -> int | None:
    """The part whose effect speaks for the claim: what contradicts it most, else what supports it least."""
    known = [i for i, part in enumerate(parts) if part.counts and part.effect is not None]
    known = known or [i for i, part in enumerate(parts) if part.effect is not None]
    if not known:
        return None
    contradicting = [i for i in known if parts[i].outcome == "contradicted"]
    if contradicting:
        return min(contradicting, key=lambda i: parts[i].p_against or 0.0)
    open_ones = [i for i in known if parts[i].outcome == "inconclusive"] or known
    return max(open_ones, key=lambda i: parts[i].p or 0.0)


def _command(path: str, evidence: Evidence, claim: Claim, is_whole: bool) -> str:
    """What runs what a claim lacks on a pair: this suite where it has all, or the one that has all experiments."""
    if not is_whole:
        options = [word for kind in claim.experiments for word in ("--only", kind)]
        return shlex.join(["lthbench", "run", WHOLE_SUITE, *options])
    there = kinds_of(evidence.pair)
    labels = dict.fromkeys(label for kind in claim.experiments for label in there.get(kind, ()))
    options = [word for label in labels for word in ("--only", label)]
    return shlex.join(["lthbench", "run", path, "--pair", evidence.name, *options])
