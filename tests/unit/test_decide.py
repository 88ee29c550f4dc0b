"""From values to a verdict, by numbers: what each outcome needs, what is reported with it, how pairs are combined."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import special, stats

from lthbench.analysis.claims.across_pairs import adjusted, over_all
from lthbench.analysis.claims.decide import (
    among_pairs,
    decide,
    decisive,
    of_all,
    outcome_of,
    outlook,
    paired_interval,
    rule,
    shortfall,
    unfinished,
)
from lthbench.analysis.claims.verdict import Effect, Outcome, PartResult, PValues, Verdict
from lthbench.analysis.stats.paired import Paired, power_equivalence, power_one_sided

ALPHA = 0.05
VALUES = [1.0, 2.0, 4.0, 3.0]


@dataclass
class Measured:
    """Evidence of so many planned replicates."""

    planned: int = 4
    keys: tuple[str, ...] = ("k",)
    lacking: Any = field(default_factory=lambda: SimpleNamespace(failed={}, missing=0))


def decided(values: list[float], expected: str = "greater", evidence: Any = None, **options: Any) -> PartResult:
    options = {"what": "higher", "tell": lambda effect, of: f"{effect.value:g}, {of}", **options}
    return decide(values, expected, evidence or Measured(len(values)), ALPHA, **options)


def test_each_outcome_is_where_the_interval_lies() -> None:
    """An interval at 90 % of mean 2.5, half width 1.519."""
    half = stats.t.ppf(0.95, 3) * stats.sem(VALUES)
    assert 1.5 < half < 1.6
    for options, outcome in (
        ({}, "supported"),
        ({"expected": "less"}, "contradicted"),
        ({"than": 2.5 - half + 1e-9}, "inconclusive"),
        ({"than": 2.5 - half - 1e-9}, "supported"),
        ({"than": 2.5 + half + 1e-9}, "contradicted"),
        ({"than": 2.5, "margin": half + 1e-9}, "negligible"),
        ({"than": 2.5, "margin": half - 1e-9}, "inconclusive"),
        ({"expected": "equivalent", "margin": 2.5 + half + 1e-9}, "supported"),
        ({"expected": "equivalent", "margin": 2.5 + half - 1e-9}, "inconclusive"),
        ({"expected": "equivalent", "margin": 2.5 - half - 1e-9}, "contradicted"),
    ):
        assert decided(VALUES, **options).outcome == outcome, options  # type: ignore[arg-type]
    assert decided([-v for v in VALUES], "equivalent", margin=2.5 - half - 1e-9).outcome == "contradicted"


def test_a_part_reports_its_effect_its_p_and_what_its_replicates_could_find() -> None:
    part = decided(VALUES, margin=0.5, unit="pp")
    half = stats.t.ppf(0.95, 3) * stats.sem(VALUES)
    assert part.effect == Effect(2.5, pytest.approx(2.5 - half), pytest.approx(2.5 + half), "pp", 0.9)
    assert (part.finding, part.n, part.keys, part.margin, part.test) == (
        "2.5, n = 4", 4, ("k",), 0.5, "paired t, one-sided"
    )  # fmt: skip
    assert part.p == pytest.approx(stats.ttest_1samp(VALUES, 0, alternative="greater").pvalue)
    assert part.p_values.contradicted == pytest.approx(1 - part.p)
    within = max(stats.t.cdf((-0.5 - 2.5) / stats.sem(VALUES), 3), stats.t.cdf((2.5 - 0.5) / stats.sem(VALUES), 3))
    assert part.p_values.negligible == pytest.approx(within)
    assert part.also == ("Wilcoxon", 1 / 16)
    spread = math.sqrt(5 / 3)
    assert part.power == pytest.approx(power_one_sided(0.5, spread, 4, ALPHA))
    assert part.detectable is not None
    assert power_one_sided(part.detectable, spread, 4, ALPHA) == pytest.approx(0.8, abs=1e-3)
    assert part.outlook is None, "it is decided"
    less = decided([-v for v in VALUES], "less", than=-0.5)
    assert (less.outcome, less.margin, less.effect and less.effect.value) == ("supported", 0.5, -2.5)
    assert less.p_values.negligible is None and less.also == ("Wilcoxon", 1 / 16)
    same = decided(VALUES, "equivalent", margin=9.0)
    assert (same.test, same.also) == ("two one-sided paired t", None)
    assert same.power == pytest.approx(power_equivalence(9.0, spread, 4, ALPHA))
    assert decided(VALUES, also=("another", 0.5)).also == ("another", 0.5)
    assert decided(VALUES).margin is None and decided(VALUES).power is None
    assert decided(VALUES, done=4).finding == "2.5, 4 configurations"


def test_an_effect_that_is_shown_may_be_reported_as_smaller_than_what_matters() -> None:
    assert decided([0.1, 0.11, 0.12], margin=0.5).reason == "smaller than the margin of 0.5"
    assert decided([0.1, -0.1, 0.02], margin=0.5).reason == "within 0.5 on both sides"
    assert decided([0.1, 0.11, 0.12]).reason == decided([1.1, 1.2, 1.3], margin=0.5).reason == ""
    assert decided([0.1, -0.1, 0.02], "equivalent", margin=0.5).reason == ""


def test_without_spread_or_replicates_nothing_is_decided() -> None:
    one, same = decided([1.0], evidence=Measured(1)), decided([1.0, 1.0], evidence=Measured(2))
    assert (one.outcome, one.reason) == ("inconclusive", "one replicate has no spread")
    assert (same.outcome, same.reason) == ("inconclusive", "the replicates do not differ: no test exists")
    assert one.effect == Effect(1.0, None, None, "", 0.9) and paired_interval([1.0], ALPHA) == (None, None)
    part = decided([], counts=False)
    assert (part.outcome, part.counts, part.effect) == ("not run", False, None)


def test_what_is_missing_or_diverged_is_said_and_decides_nothing() -> None:
    missing = Measured(9, lacking=SimpleNamespace(failed={}, missing=5))
    assert shortfall(missing, 4) == "4 of 9 replicates done; decided when all are"  # type: ignore[arg-type]
    diverged = Measured(9, lacking=SimpleNamespace(failed={3: "late diverged", 1: "early diverged"}, missing=0))
    assert shortfall(diverged, 4) == "early diverged in replicate 1; late diverged in replicate 3"  # type: ignore[arg-type]
    assert shortfall(Measured(4), 4) is None  # type: ignore[arg-type]
    assert shortfall(Measured(5), 4) == "4 of 5 replicates have the number that is compared"  # type: ignore[arg-type]
    assert decided(VALUES, evidence=missing).outcome == decided(VALUES, evidence=diverged).outcome == "inconclusive"
    assert decided(VALUES, evidence=missing, done=2).reason.startswith("2 of 9")
    part = unfinished("x", True, diverged)  # type: ignore[arg-type]
    assert (part.outcome, part.reason[:14], part.keys) == ("inconclusive", "early diverged", ("k",))


def test_at_the_level_itself_support_goes_before_contradiction_and_contradiction_before_negligible() -> None:
    for p, outcome in (
        (PValues(0.05, 0.01, 0.01), "supported"),
        (PValues(0.051, 0.05, 0.01), "contradicted"),
        (PValues(0.051, 0.051, 0.05), "negligible"),
        (PValues(0.051, 0.051, 0.051), "inconclusive"),
        (PValues(), "inconclusive"),
    ):
        assert outcome_of(p, ALPHA) == outcome


def test_the_rule_is_of_the_interval_around_the_bound() -> None:
    p = rule(Paired(1.0, 2.0, 4), "greater", 0.5, 0.0)
    assert p == PValues(pytest.approx(stats.t.cdf(-0.5, 3)), pytest.approx(stats.t.cdf(0.5, 3)), None)
    margins = rule(Paired(1.0, 2.0, 4), "equivalent", 0.0, 3.0)
    assert margins.supported == pytest.approx(stats.t.cdf(-2.0, 3))
    assert margins.contradicted == pytest.approx(min(stats.t.cdf(2.0, 3), stats.t.cdf(4.0, 3)))


def part(outcome: Outcome, *p: float | None, counts: bool = True, value: float | None = 1.0, **more: Any) -> PartResult:
    effect = None if value is None else Effect(value)
    return PartResult(outcome, outcome, counts=counts, effect=effect, p_values=PValues(*p), finding=outcome, **more)


def test_all_parts_must_hold_and_one_that_does_not_is_enough_for_the_others() -> None:
    parts = [part("supported", 0.01, 0.99, 0.001), part("inconclusive", 0.3, 0.02, 0.4), part("inconclusive", 0.2)]
    assert of_all(parts) == PValues(0.3, pytest.approx(0.06), 1.0)
    assert of_all(parts[:1]) == PValues(0.01, None, None), "what holds is not held against the whole"
    assert of_all([part("inconclusive"), parts[0]]).supported is None and of_all([]) == PValues()


def test_the_part_that_speaks_for_a_claim_is_the_one_at_fault_or_supports_it_least() -> None:
    parts = [part("supported", 0.01), part("contradicted", 0.99, 0.02), part("contradicted", 0.98, 0.01)]
    assert decisive(parts, "contradicted") == 2
    assert decisive(parts, "inconclusive") == 1
    assert decisive([part("supported", 0.01), part("supported", 0.04)], "supported") == 1
    assert decisive([part("supported", 0.01), part("inconclusive", 0.2, counts=False)], "supported") == 0
    assert decisive([part("inconclusive", value=None), part("inconclusive", 0.3, counts=False)], "inconclusive") == 1
    assert decisive([part("not run", value=None)], "not run") is None


def test_the_outlook_is_the_smallest_number_at_which_the_interval_is_half_of_what_matters() -> None:
    def half(n: int, alpha: float = ALPHA) -> float:
        return float(special.stdtrit(n - 1, 1 - alpha)) / math.sqrt(n)

    spread = Paired(0.1, 1.0, 4)
    found = outlook(spread, 1.0, ALPHA, "pp")
    wanted = next(n for n in range(5, 51) if half(n) <= 0.5)
    assert (found.half_width, found.n, found.half_width_then) == pytest.approx((half(4), wanted, half(wanted)))
    assert found.text == (
        f"half width ±1.2 pp now; at this spread ±{half(wanted):.2g} pp with n = {wanted}, half the margin, "
        "which decides unless the effect is as near to it"
    )
    assert outlook(spread, 1.0, ALPHA, "", decides=True).text.endswith("which decides wherever it lies")
    assert outlook(Paired(0.1, 0.2, 4), 1.0, ALPHA, "").n == 5, "one more may be enough"
    hopeless = outlook(spread, 0.1, ALPHA, "")
    assert (hopeless.n, hopeless.half_width_then) == (None, pytest.approx(half(50)))
    assert hopeless.text.endswith("with n = 50: no n up to 50 is sure to decide")
    assert outlook(spread, 0.0, ALPHA, "").text.endswith("; without a margin no n can be named that decides")
    assert outlook(Paired(0.1, 1.0, 60), 0.01, ALPHA, "").half_width_then == pytest.approx(half(61))
    pairs = outlook(spread, 1.0, ALPHA, "", num_pairs=3)
    assert pairs.n == next(n for n in range(5, 51) if half(n, ALPHA / 3) <= 0.5)
    assert "at the level that Holm's adjustment over 3 pairs may leave" in pairs.text
    of_pair = among_pairs(part("inconclusive", 0.2, outlook=found), ALPHA, 3)
    assert of_pair is not None and of_pair.n == pairs.n
    assert among_pairs(part("inconclusive", 0.2), ALPHA, 3) is None


def test_an_open_part_has_an_outlook_and_one_of_configurations_has_none() -> None:
    open_part = decided([1.0, -1.0, 2.0], margin=1.5)
    assert open_part.outlook is not None and (open_part.outlook.gap, open_part.outlook.decides) == (1.5, True)
    assert not (decided([1.0, -1.0, 2.0], than=0.5).outlook or open_part.outlook).decides
    assert not (decided([1.0, -1.0, 2.0], "equivalent", margin=0.5).outlook or open_part.outlook).decides
    assert decided([1.0, -1.0, 2.0], margin=1.5, done=4).outlook is None


def verdict(pair: str, *parts: PartResult, outcome: Outcome = "inconclusive", **more: Any) -> Verdict:
    return Verdict("C1", "", "", pair, outcome, "", p_alone=of_all(parts), parts=parts, **more)


def test_holms_adjustment_is_over_the_planned_pairs_that_measure_the_claim() -> None:
    verdicts = {name: verdict(name, part("inconclusive", p, 1 - p)) for name, p in (("a", 0.01), ("b", 0.03))}
    verdicts["c"] = verdict("c", outcome="not run")
    verdicts["d"] = verdict("d", outcome="not applicable")
    found = adjusted(verdicts, {"d"}, ALPHA)
    assert [found[name].p_values.supported for name in "abcd"] == [pytest.approx(0.03), pytest.approx(0.06), None, None]
    assert [found[name].outcome for name in "abcd"] == ["supported", "inconclusive", "not run", "not applicable"]
    assert found["b"].reason == "holds alone, but not after Holm's adjustment over 3 pairs"
    assert (found["a"].decisive, found["a"].finding, found["c"].decisive) == (0, "inconclusive", None)


def test_an_open_verdict_names_the_parts_that_are_open() -> None:
    open_one, held = part("inconclusive", 0.2, reason="why"), part("supported", 0.001, reason="small")
    (one,) = adjusted({"a": verdict("a", open_one)}, (), ALPHA).values()
    assert one.reason == "why"
    (two,) = adjusted({"a": verdict("a", open_one, held)}, (), ALPHA).values()
    assert two.reason == "not decided whether inconclusive (why)"
    undone = replace(open_one, reason="1 of 3 replicates done; decided when all are")
    (waits,) = adjusted({"a": verdict("a", open_one, undone)}, (), ALPHA).values()
    assert waits.reason == undone.reason
    weak = part("contradicted", 0.97, 0.03, reason="near")
    (among,) = adjusted({"a": verdict("a", weak, open_one)}, (), ALPHA).values()
    assert among.reason.startswith("not decided whether contradicted (contradicted alone, but not among 2 parts; near)")
    (told,) = adjusted({"a": verdict("a", held, held)}, (), ALPHA).values()
    assert (told.outcome, told.reason) == ("supported", "small")
    (reported,) = adjusted({"a": verdict("a", replace(held, counts=False))}, (), ALPHA).values()
    assert reported.reason == "reported only: no direction is stated"
    against = part("contradicted", 0.99, 0.001, reason="far")
    (fault,) = adjusted({"a": verdict("a", held, against)}, (), ALPHA).values()
    assert (fault.outcome, fault.reason, fault.decisive) == ("contradicted", "far", 1)


def test_of_several_open_parts_the_one_that_needs_most_replicates_gives_the_outlook() -> None:
    near, far, never = (decided([1.0, -1.0, 2.0, 0.5], margin=m) for m in (1.7, 1.0, 0.1))
    assert near.outlook and far.outlook and never.outlook
    assert near.outlook.n is not None and far.outlook.n is not None and near.outlook.n < far.outlook.n
    assert never.outlook.n is None
    for parts, gap in (((near, far), 1.0), ((near, never, far), 0.1)):
        (found,) = adjusted({"a": verdict("a", *parts)}, (), ALPHA).values()
        assert found.outlook is not None and found.outlook.gap == gap


CLAIM: Any = SimpleNamespace(sentence="Tickets win.", origin="abstract", over_pairs="several")


def test_over_all_pairs_two_are_several_and_none_may_say_the_opposite() -> None:
    def over(*outcomes: Outcome, every: bool = False, absent: tuple[str, ...] = ()) -> Verdict:
        verdicts = [verdict(str(i), part(o, 0.01), outcome=o) for i, o in enumerate(outcomes)]
        claim = SimpleNamespace(**{**vars(CLAIM), "over_pairs": "every" if every else "several"})
        return over_all("C1", claim, verdicts, absent, ALPHA)  # type: ignore[arg-type]

    assert over("supported", "supported", "inconclusive").outcome == "supported"
    assert over("supported", "supported", "inconclusive", every=True).outcome == "inconclusive"
    assert over("supported", "supported", every=True).outcome == over("supported").outcome == "supported"
    assert over("supported", "inconclusive").outcome == "inconclusive"
    assert over("supported", "supported", "contradicted", "contradicted").outcome == "inconclusive"
    assert over("contradicted", "contradicted", "supported").outcome == "contradicted"
    assert over("negligible", "negligible", "supported").outcome == "negligible"
    some = over("supported", "supported", "contradicted", "not run", "not applicable", absent=("4",))
    interval = stats.binomtest(2, 3).proportion_ci(0.95, method="exact")
    assert some.finding == (f"supported on 2 of 3 pairs ({interval.low:.0%} to {interval.high:.0%}), contradicted on 1")
    assert some.reason == "rests on 3 of the 4 pairs that the suite can decide it on"
    assert (some.n, some.planned, len(some.parts), some.pair) == (3, 5, 5, None)


def test_a_claim_on_no_pair_says_how_it_would_be() -> None:
    a = verdict("a", outcome="not run", command="lthbench run s.yaml --pair a --only imp", lacks="controls")
    none = over_all(
        "C1", CLAIM, [replace(a, reason="no controls"), replace(a, pair="b", reason="no controls")], (), 0.05
    )
    assert (none.outcome, none.reason) == ("not run", "on no pair: no controls")
    assert (none.command, none.lacks) == ("lthbench run s.yaml --only imp", "controls")
    other = over_all("C1", CLAIM, [replace(a, reason="x"), replace(a, reason="y", outcome="not applicable")], (), 0.05)
    assert (other.outcome, other.reason) == ("not run", "on no pair")
    assert over_all("C1", CLAIM, [replace(a, outcome="not applicable")], (), 0.05).outcome == "not applicable"
