"""Which part of a suite decides the most claims within a budget.

A claim is decided on a pair where an effect that would matter is found with a chance of 80 % (`power`). Each needs some
of the pair's experiments, up to some level. For each number of replicates and each pair, experiments are added for the
claim whose decision costs least; of the parts found on the way, the best combinations over pairs are kept. These do not
depend on the budget, which only selects the best that it pays for, so that a larger budget never decides less.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from lthbench.analysis.claims.evidence import Evidence
from lthbench.analysis.claims.judge import ALPHA
from lthbench.analysis.claims.power import ClaimPower, families, power_of
from lthbench.analysis.claims.spreads import Spread, Spreads
from lthbench.analysis.points import MeasuredPoint, planned_points
from lthbench.suite.budget import Prices
from lthbench.suite.claim_tests import OtherClaim, Test
from lthbench.suite.claims import Claim
from lthbench.suite.plan import Plan, kinds_of
from lthbench.suite.schema import Pair
from lthbench.suite.subset import Subset

_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 50, 100, 200, 500)
_PERHAPS = ("large effects", "spread unknown")
Decision = tuple[str, str]  # claim, pair


@dataclass(frozen=True)
class Affordable:
    """A part of a suite: one subset per pair, all with the same replicates.

    Attributes:
        seconds: of the device, for what is not done yet.
        decided: the claims, with the pair, that find effects as large as would matter.
        perhaps: those that find only larger ones, or whose spread is not known.
    """

    parts: tuple[Subset, ...] = ()
    seconds: float = 0.0
    decided: frozenset[Decision] = frozenset()
    perhaps: frozenset[Decision] = frozenset()

    @property
    def worth(self) -> tuple[int, int]:
        """What parts are compared by: first how many claims they decide, then how many they may decide."""
        return len(self.decided), len(self.perhaps)

    def __add__(self, other: Affordable) -> Affordable:
        return Affordable(
            self.parts + other.parts,
            self.seconds + other.seconds,
            self.decided | other.decided,
            self.perhaps | other.perhaps,
        )


class Powers:
    """What the claims of a suite can find with parts of its pairs.

    The level of a claim is shared among all pairs of the suite that measure it, run or not, as in its verdicts.
    """

    def __init__(self, plan: Plan, spreads: Spreads) -> None:
        self.suite = suite = plan.suite
        self._points = {name: planned_points(plan, name) for name in suite.pairs}
        self._spreads = spreads
        self._spread_of: dict[int, Callable[[str, Pair], Spread]] = {}
        self._families = families(suite.claims, {name: self._evidence(name, Subset()) for name in suite.pairs})

    def of(self, part: Subset, claims: Iterable[str] | None = None) -> list[ClaimPower]:
        """What claims can find with a part: those named, or all of the suite's."""
        suite = self.suite
        evidence = {name: self._evidence(name, part) for name in part.pairs or suite.pairs}
        chosen = suite.claims if claims is None else {name: suite.claims[name] for name in claims}
        return power_of(chosen, evidence, self._spread, ALPHA / suite.looks, self._families)

    def _evidence(self, name: str, part: Subset) -> Evidence:
        pair = self.suite.pairs[name]
        if part.experiments:
            kept = {label: e for label, e in pair.experiments.items() if label in part.experiments}
            pair = pair.model_copy(update={"experiments": kept})
        points = [point for point in self._points[name] if _is_run(part, point)]
        return Evidence(name, pair, self.suite.tested(part.replicates), points)

    def _spread(self, test: Test, claim: Claim) -> Callable[[str, Pair], Spread]:
        if id(test) not in self._spread_of:
            self._spread_of[id(test)] = self._spreads.of(test, claim)
        return self._spread_of[id(test)]


def _is_run(part: Subset, point: MeasuredPoint) -> bool:
    return (not part.experiments or point.experiment in part.experiments) and (
        part.levels is None or point.level is None or point.level <= part.levels
    )


def affordable(powers: Powers, prices: Prices) -> list[Affordable]:
    """The parts of a suite that are worth more than every cheaper one, by rising price."""
    suite = powers.suite
    needs = {name: _needs(powers, name) for name in suite.pairs}
    found = [Affordable()]
    for count in (*(n for n in _COUNTS if n < suite.replicates), suite.replicates):
        best = [Affordable()]
        for name in suite.pairs:
            options = [Affordable()]
            for level in _deepest(suite.pairs[name]):
                part = Subset(pairs=(name,), replicates=None if count == suite.replicates else count, levels=level)
                options += _of_pair(powers.of(part), needs[name], prices.by_experiments(part), part, suite.pairs[name])
            best = _best(one + other for one, other in itertools.product(best, _best(options)))
        found += best
    return _best(found)


def within(parts: Iterable[Affordable], seconds: float) -> Affordable:
    """The best of some parts that a budget pays for; one without subsets if it pays for none."""
    return max((one for one in parts if one.seconds <= seconds), key=lambda one: one.worth, default=Affordable())


def _best(parts: Iterable[Affordable]) -> list[Affordable]:
    best: list[Affordable] = []
    for one in sorted(parts, key=lambda one: (one.seconds, [-n for n in one.worth])):
        if not best or one.worth > best[-1].worth:
            best.append(one)
    return best


def _deepest(pair: Pair) -> list[int | None]:
    """The levels at which a part may end: the last of each set at which claims are tested, and no limit."""
    deepest = max(getattr(e, "levels", 0) if isinstance(getattr(e, "levels", 0), int) else max(e.levels)  # type: ignore[attr-defined]
                  for e in pair.experiments.values())  # fmt: skip
    return [*sorted({max(levels) for levels in pair.claim_levels.values() if max(levels) < deepest}), None]


def _needs(powers: Powers, name: str) -> dict[str, frozenset[str]]:
    """Claim -> the experiments of a pair that it needs: without any one of them it finds less."""
    suite, kinds = powers.suite, kinds_of(powers.suite.pairs[name])
    found: dict[str, frozenset[str]] = {}
    for claim in suite.claims:
        rests_on = _rests_on(claim, suite.claims)
        labels = {label for one in rests_on for kind in suite.claims[one].experiments for label in kinds.get(kind, ())}
        part = Subset(tuple(sorted(labels)), (name,))
        if not labels or not (whole := [p for p in powers.of(part, rests_on) if p.claim == claim]):
            continue
        for label in sorted(labels):
            less = Subset(tuple(sorted(labels - {label})), (name,))
            if less.experiments and [p for p in powers.of(less, rests_on) if p.claim == claim] == whole:
                labels -= {label}
        found[claim] = frozenset(labels)
    return found


def _rests_on(claim: str, claims: Mapping[str, Claim]) -> list[str]:
    """A claim, preceded by those whose verdicts its tests take over."""
    others = [name for t in claims[claim].tests if isinstance(t, OtherClaim) for name in _rests_on(t.claim, claims)]
    return list(dict.fromkeys([*others, claim]))


def _of_pair(
    powers: Iterable[ClaimPower],
    needs: Mapping[str, frozenset[str]],
    prices: Mapping[frozenset[str], float],
    part: Subset,
    pair: Pair,
) -> list[Affordable]:
    """Parts of a pair with more and more experiments: each adds those with which one more decision costs least."""
    decides = {one.claim: one.decides for one in powers if one.claim in needs}
    left = [claim for claim, word in decides.items() if word == "yes" or word in _PERHAPS]
    (name,) = part.pairs
    options: list[Affordable] = []
    labels: frozenset[str] = frozenset()

    def with_labels(chosen: frozenset[str]) -> Affordable:
        there = [claim for claim in decides if needs[claim] <= chosen]
        return Affordable(
            (Subset(() if chosen >= set(pair.experiments) else tuple(sorted(chosen)),
                    part.pairs, (), part.replicates, part.levels),),
            sum(seconds for experiments, seconds in prices.items() if experiments & chosen),
            frozenset((claim, name) for claim in there if decides[claim] == "yes"),
            frozenset((claim, name) for claim in there if decides[claim] in _PERHAPS),
        )  # fmt: skip

    before = Affordable()
    while left:

        def cost_of_more(option: Affordable, before: Affordable = before) -> float:
            more = [new - old for new, old in zip(option.worth, before.worth, strict=True)]
            return (option.seconds - before.seconds) / (more[0] + more[1] / 1000)

        before = min((with_labels(labels | needs[claim]) for claim in left), key=cost_of_more)
        labels = frozenset(before.parts[0].experiments or pair.experiments)
        options.append(before)
        left = [claim for claim in left if not needs[claim] <= labels]
    return options
