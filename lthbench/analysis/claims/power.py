"""What a suite can decide at all, before any of it is run: the smallest effect that each test would find.

By the rule of verdicts, an effect is found where the interval lies beyond the bound, at the level that the suite's
looks, and Holm's adjustment over its pairs, leave to the first pair. Here it must be found with a chance of 80 %, with
the planned replicates and the spread that is known or assumed. Some tests no outcome can pass: those of orders, where
too few replicates or configurations are planned for any p to be that small.
"""

from __future__ import annotations

import fnmatch
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from scipy import special

from lthbench.analysis.claims.evidence import Evidence, NotPlanned, unit_of
from lthbench.analysis.claims.judge import ALPHA, YET, part_of
from lthbench.analysis.claims.spreads import UNKNOWN, Spread, Spreads
from lthbench.analysis.points import planned_points
from lthbench.analysis.stats import rank_correlation
from lthbench.analysis.stats.paired import POWER, detectable, power_equivalence, power_one_sided
from lthbench.suite.claim_names import needed_kinds
from lthbench.suite.claim_tests import (
    Agreement,
    Contrast,
    Cost,
    Mixed,
    Onset,
    OtherClaim,
    Rank,
    Test,
    Trend,
    Waiting,
)
from lthbench.suite.claims import Claim
from lthbench.suite.plan import Plan, kinds_of
from lthbench.suite.schema import Pair

# From the best to the worst.
Decides = Literal["yes", "spread unknown", "large effects", "no", "not measured", "reported only"]
# In % of training: ResNet-50 on ImageNet, Frankle et al. 2020 (arXiv 1912.05671); others lie at 0 to 3 %.
LATEST_PUBLISHED_ONSET = 20
# A correlation above this is an order without exceptions.
LARGE = 0.9
CORRELATIONS = ("rho", "tau", "partial correlation")
ORDER: tuple[Decides, ...] = ("yes", "spread unknown", "large effects", "no", "not measured")


@dataclass(frozen=True)
class PartPower:
    """What one test of a claim can find on a pair.

    Attributes:
        what: what is compared, in words.
        counts: whether the verdict rests on it.
        decides: `yes`, effects as large as would matter, where that is stated; `large effects`, only larger ones; `no`,
            none at all.
        smallest: the effect that is found with a chance of 80 %, from the test's bound, in `unit`; None where it has
            no size or its spread is not known.
        matters: the effect that would matter: the margin, or how far the bound is from 0; None where none is named.
        spread: the standard deviation over replicates, in `unit`, and where it is from.
        reason: why it does not decide.
    """

    what: str
    counts: bool
    decides: Decides
    smallest: float | None = None
    unit: str = ""
    matters: float | None = None
    spread: Spread = UNKNOWN
    reason: str = ""


@dataclass(frozen=True)
class ClaimPower:
    """What can be found of a claim on a pair; the weakest of the tests that count is the limit.

    Attributes:
        n: the planned replicates.
        alpha: the one-sided level that each test has, its share of the looks and of Holm's over the pairs.
        decides: whether the claim can be supported where it holds; `no` also names claims that no outcome decides.
        can_contradict: whether some outcome would contradict it.
        weakest: the index of the part that decides this, or None.
    """

    claim: str
    pair: str
    n: int
    alpha: float
    decides: Decides
    can_contradict: bool
    weakest: int | None
    parts: tuple[PartPower, ...]


def power(plan: Plan, spreads: Spreads) -> list[ClaimPower]:
    """What each claim of a suite can find on each pair that it is about."""
    suite = plan.suite
    evidence = {
        name: Evidence(name, pair, suite.tested(), planned_points(plan, name)) for name, pair in suite.pairs.items()
    }
    return power_of(suite.claims, evidence, spreads.of, ALPHA / suite.looks, families(suite.claims, evidence))


def families(claims: Mapping[str, Claim], evidence: Mapping[str, Evidence]) -> dict[str, int]:
    """Claim -> how many pairs measure it, over which Holm's adjustment shares its level."""
    found = {}
    for name, claim in claims.items():
        counting = [i for i, test in enumerate(claim.tests) if test.counts]
        gaps = [_gaps(claim, evidence[pair]) for pair in _about(claim, evidence)]
        found[name] = max(1, sum(any(of_pair[i] is None for i in counting) for of_pair in gaps))
    return found


def power_of(
    claims: Mapping[str, Claim],
    evidence: Mapping[str, Evidence],
    spread_of: Callable[[Test, Claim], Callable[[str, Pair], Spread]],
    alpha: float,
    family: Mapping[str, int],
) -> list[ClaimPower]:
    """What claims can find with the points that are planned of some pairs.

    Args:
        alpha: the level of a claim, which the pairs of its family share.
    """
    found: list[ClaimPower] = []
    for name, claim in claims.items():
        spreads = [spread_of(test, claim) for test in claim.tests]
        level = alpha / family[name]
        for pair in _about(claim, evidence):
            before = {one.claim: one for one in found if one.pair == pair}
            parts = tuple(
                _part(test, gap, claim, evidence[pair], level, spread, before)
                for test, gap, spread in zip(claim.tests, _gaps(claim, evidence[pair]), spreads, strict=True)
            )
            found.append(_claim(name, evidence[pair], level, parts))
    return found


def _about(claim: Claim, pairs: Iterable[str]) -> list[str]:
    return [pair for pair in pairs if any(fnmatch.fnmatch(pair, pattern) for pattern in claim.pairs)]


def _gaps(claim: Claim, evidence: Evidence) -> list[str | None]:
    """For each test why the plan does not allow it; None if it does."""
    kinds = kinds_of(evidence.pair)
    evidence.experiments = frozenset(label for kind in claim.experiments for label in kinds.get(kind, ()))
    lacking = [kind for kind in needed_kinds(claim) if kind not in kinds]
    gaps: list[str | None] = []
    for test in claim.tests:
        if isinstance(test, OtherClaim):
            gaps.append(None)
            continue
        if isinstance(test, Cost):
            absent = [kind for kind in test.experiments if kind not in kinds]
            gaps.append(f"the pair has no {', '.join(absent)}" if absent else None)
            continue
        part, gap = part_of(test, claim, evidence, {}, {}, ALPHA)
        # What is not planned now will not be: what results may choose is among the points.
        is_there = gap == "unfinished" and not part.reason.endswith(YET)
        reason = f"no {', '.join(lacking)}" if lacking else part.reason.removesuffix(YET)
        gaps.append(None if is_there else reason)
    return gaps


def _claim(name: str, evidence: Evidence, alpha: float, parts: tuple[PartPower, ...]) -> ClaimPower:
    pair, n = evidence.name, evidence.planned
    counting = [i for i, part in enumerate(parts) if part.counts]
    if not counting:
        return ClaimPower(name, pair, n, alpha, "reported only", False, None, parts)

    def weakness(i: int) -> tuple[int, float]:
        part = parts[i]
        # Relative to what would matter: for correlations, to 1.
        matters = part.matters or (1.0 if part.unit.startswith(CORRELATIONS) else math.inf)
        return ORDER.index(part.decides), (part.smallest or 0.0) / matters

    weakest = max(counting, key=weakness)
    decides = parts[weakest].decides
    # The tests that are measured can still contradict the claim, since all must hold.
    measured = [i for i in counting if ORDER.index(parts[i].decides) < ORDER.index("no")]
    if decides == "not measured" and len({parts[i].decides for i in counting}) > 1:
        decides = "no"
    return ClaimPower(name, pair, n, alpha, decides, bool(measured), weakest, parts)


def _part(
    test: Test,
    gap: str | None,
    claim: Claim,
    evidence: Evidence,
    alpha: float,
    spread_of: Callable[[str, Pair], Spread],
    before: dict[str, ClaimPower],
) -> PartPower:
    shown = PartPower(test.what, test.counts, "yes")
    if gap is not None:
        return replace(shown, decides="not measured", reason=gap)
    if isinstance(test, OtherClaim):
        return _as_claim(shown, test, before)
    if isinstance(test, Cost):
        return replace(shown, reason="a count, which has no error")
    kinds = kinds_of(evidence.pair)
    evidence.experiments = frozenset(label for kind in claim.experiments for label in kinds.get(kind, ()))
    n = evidence.planned
    if isinstance(test, Rank):
        return _of_ranks(shown, test, evidence, alpha)
    if isinstance(test, Agreement):
        return _of_agreement(shown, test, evidence, n, alpha)
    if isinstance(test, Trend):
        return _of_trend(shown, test, evidence, n, alpha)
    if isinstance(test, Mixed) and test.over == "configurations":
        return _of_configurations(shown, test, evidence, alpha)
    least = 3 if isinstance(test, Mixed) else 2
    if n < least:
        return replace(shown, decides="no", reason=f"{n} replicates have no spread; the test needs {least}")
    return _of_mean(shown, test, spread_of(evidence.name, evidence.pair), n, alpha)


def _as_claim(shown: PartPower, test: OtherClaim, before: dict[str, ClaimPower]) -> PartPower:
    other = before.get(test.claim)
    if other is None:
        return replace(shown, decides="not measured", reason=f"{test.claim} is not about this pair")
    weakest = PartPower("", True, other.decides) if other.weakest is None else other.parts[other.weakest]
    return replace(weakest, what=test.what, counts=test.counts, decides=other.decides, reason=f"as {test.claim}")


def _of_mean(
    shown: PartPower, test: Contrast | Mixed | Onset | Waiting, spread: Spread, n: int, alpha: float
) -> PartPower:
    """The power for a mean over replicates, tested by Student's t."""
    matters, equivalent, unit = None, False, "% of training"
    if isinstance(test, Mixed):
        unit = "logit" if test.logit else unit_of(test.metric)
    elif isinstance(test, Contrast):
        unit = unit_of(test.plus[0].metric or test.metric)
        matters = test.margin or abs(test.than) or None
        equivalent = test.expected == "equivalent"
    smallest = _smallest(n, alpha, equivalent)
    if spread.value is None:
        unit = "standard deviations"
        return replace(shown, decides="spread unknown", smallest=smallest, unit=unit, matters=None, spread=spread)
    shown = replace(shown, matters=matters, unit=unit, spread=spread)
    smallest = None if smallest is None else smallest * spread.value
    if isinstance(test, Onset) and smallest is not None and smallest > LATEST_PUBLISHED_ONSET:
        reason = f"published onsets are all within {LATEST_PUBLISHED_ONSET} % of training"
        return replace(shown, smallest=smallest, decides="large effects", reason=reason)
    if smallest is None or matters is None or smallest <= matters:
        return replace(shown, smallest=smallest)
    what = "equivalence is shown within" if equivalent else "found where it is"
    reason = f"{what} {smallest:.2g} {unit}, where {matters:g} would matter"
    return replace(shown, smallest=smallest, decides="large effects", reason=reason)


@cache
def _smallest(n: int, alpha: float, equivalent: bool) -> float | None:
    """The effect that n replicates find, or the margin within which they show equivalence, in standard deviations."""
    test_power = power_equivalence if equivalent else power_one_sided
    return detectable(lambda size: test_power(size, 1.0, n, alpha), 1 / math.sqrt(n))


def _of_ranks(shown: PartPower, test: Rank, evidence: Evidence, alpha: float) -> PartPower:
    """The power for a rank correlation over configurations, by Fisher's z (Fieller, Hartley & Pearson 1957)."""
    configurations: set[str] = set()
    for axes in test.of:
        try:
            known = {(point.arm, names.get("config")): point.key for point, names in evidence.select(axes.x)}
            rewound = {"rewound": None}
            both = {
                (point.arm, names.get("config")) for point, names in evidence.select(axes.y.model_copy(update=rewound))
            }
        except NotPlanned:
            continue
        configurations |= {key for place, key in known.items() if place in both}
    k = len(configurations)
    if k < test.minimum:
        return replace(shown, decides="no", reason=f"{k} configurations are planned; a verdict needs {test.minimum}")
    unit, error = (
        ("rho", math.sqrt(1.06 / (k - 3))) if test.method == "spearman" else ("tau", math.sqrt(0.437 / (k - 4)))
    )
    bound = math.atanh(test.than)
    smallest = math.tanh(bound + (_normal(alpha) + _normal(1 - POWER)) * error)
    return _of_correlation(shown, smallest, f"{unit} over {k} configurations")


def _of_configurations(shown: PartPower, test: Mixed, evidence: Evidence, alpha: float) -> PartPower:
    """The power for a coefficient over configurations, as a partial correlation, by Fisher's z."""
    trainings: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for name, rows in test.rows.items():
        try:
            found = evidence.select(rows.of)
        except NotPlanned:
            continue
        for point, names in found:
            place = (name, point.arm, *sorted(names.items()))
            trainings[place].add(point.key)
    # As in the rows of the model, what shares a training under two names is one configuration.
    k, known = 0, set[str]()
    for keys in trainings.values():
        k += keys.isdisjoint(known)
        known |= keys
    others = len(test.fixed) - 1
    if k - others - 3 < 1:
        reason = f"{k} configurations are planned for {len(test.fixed)} terms; the test needs {others + 4}"
        return replace(shown, decides="no", reason=reason)
    smallest = math.tanh((_normal(alpha) + _normal(1 - POWER)) / math.sqrt(k - others - 3))
    return _of_correlation(shown, smallest, f"partial correlation over {k} configurations")


def _of_agreement(shown: PartPower, test: Agreement, evidence: Evidence, n: int, alpha: float) -> PartPower:
    """The power for agreement under exchange of arms: at best one half of them is stable and matches in every
    replicate."""
    arms = {point.arm for point, _ in evidence.select(test.barrier) if point.level}
    smallest_p = math.comb(len(arms), len(arms) // 2) ** -float(n)
    if smallest_p <= alpha:
        return shown
    return replace(shown, decides="no", reason=_too_few(f"{n} replicates of {len(arms)} arms", smallest_p, alpha))


def _of_trend(shown: PartPower, test: Trend, evidence: Evidence, n: int, alpha: float) -> PartPower:
    """The power for Page's trend, whose statistic is the mean over replicates of the rank correlation with the dose."""
    steps = 1 + len({names["dose"] for _, names in evidence.select(test.doses)})
    if steps < 3 or n < 2:
        return replace(shown, decides="no", reason=f"a trend needs two doses, and {steps - 1} is planned")
    smallest_p = rank_correlation.page([list(range(steps))] * n)
    if smallest_p > alpha:
        return replace(shown, decides="no", reason=_too_few(f"{n} replicates of {steps - 1} doses", smallest_p, alpha))
    smallest = (_normal(alpha) + _normal(1 - POWER)) / math.sqrt(n * (steps - 1))
    return _of_correlation(shown, min(1.0, smallest), "rho with the dose")


def _of_correlation(shown: PartPower, smallest: float, unit: str) -> PartPower:
    if smallest <= LARGE:
        return replace(shown, smallest=smallest, unit=unit)
    return replace(shown, decides="large effects", smallest=smallest, unit=unit, reason="only nearly perfect orders")


def _too_few(what: str, smallest_p: float, alpha: float) -> str:
    return f"of {what} no outcome has a p under {smallest_p:.2g}, and {alpha:.2g} is needed"


def _normal(tail: float) -> float:
    return float(special.ndtri(1 - tail))
