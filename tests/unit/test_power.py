"""What a suite can decide, told from its plan alone: against simulated verdicts, and against the tests themselves."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from planted import suite_text

from lthbench.analysis.claims.configuration_tests import _Cell, _exchange_p
from lthbench.analysis.claims.decide import outcome_of, rule
from lthbench.analysis.claims.power import ClaimPower, PartPower, power
from lthbench.analysis.claims.spreads import ASSUMED, ASSUMED_FROM, Spread, Spreads
from lthbench.analysis.stats.paired import Paired
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.subset import Subset

SUITES = Path(__file__).parents[2] / "suites"
NOTHING_RECORDED = Spreads(())
CONTRAST = """\
C1:
  sentence: Tickets win.
  origin: abstract
  experiments: [EXPERIMENTS]
  tests:
    - {what: better, test: contrast, plus: {early: ticket}, minus: {early: OTHER}, margin: 0.5}
"""


PAIR = """\
  {name}:
    model: {{name: lenet-300-100, width: 10}}
    data: {{name: fashion-mnist-10k, validation: 100, num_train: 300}}
    recipe: {{steps: 3ep, batch_size: 64, optimizer: {{name: sgd, lr: 0.05}}}}
    arms: {{early: {{class: early}}, late: {{class: late, recipe: {{optimizer: {{lr: 0.2}}}}}}}}
    claim_levels: {{range: [1, 2]}}
    experiments: {{imp: {{levels: 2}}{controls}}}
"""


def planned(folder: Path, claims: str, replicates: int, **controls: bool) -> list[ClaimPower]:
    """What a suite with tickets, and perhaps controls, of some pairs can decide, nothing being recorded."""
    (folder / "claims.yaml").write_text(claims)
    head = f"title: power\nreplicates: {replicates}\nclaims: [claims.yaml]\npairs:\n"
    pairs = (PAIR.format(name=n, controls=", controls: {levels: [1, 2]}" * has) for n, has in controls.items())
    (folder / "suite.yaml").write_text(head + "".join(pairs))
    return power(make_plan(load_suite(folder / "suite.yaml")), NOTHING_RECORDED)


def contrast(other: str = "dense", experiments: str = "imp") -> str:
    return CONTRAST.replace("OTHER", other).replace("EXPERIMENTS", experiments)


@pytest.mark.parametrize("replicates", [3, 10])
def test_an_effect_of_the_reported_size_is_found_four_times_in_five(replicates: int, tmp_path: Path) -> None:
    (found,) = planned(tmp_path, contrast(), replicates, a=False)
    (part,) = found.parts
    assert part.smallest is not None and part.spread.value == ASSUMED and found.alpha == 0.05
    values = np.random.default_rng(1).normal(part.smallest, ASSUMED, (2000, replicates))
    outcomes = [
        outcome_of(rule(Paired(float(m), float(s), replicates), "greater", 0, 0.5), found.alpha)
        for m, s in zip(values.mean(1), values.std(1, ddof=1), strict=True)
    ]
    assert 0.77 < outcomes.count("supported") / 2000 < 0.83


def test_more_replicates_decide_what_few_find_only_where_it_is_large(tmp_path: Path) -> None:
    decided = {n: planned(tmp_path, contrast(), n, a=False)[0].decides for n in (1, 3, 5)}
    assert decided == {1: "no", 3: "large effects", 5: "yes"}


def test_each_pair_that_measures_a_claim_takes_its_share_of_the_level(tmp_path: Path) -> None:
    found = planned(tmp_path, contrast("reinit", "imp, controls"), 5, a=True, b=False, c=True)
    assert [one.alpha for one in found] == [0.025] * 3, "one that does not measure it is not counted"
    assert [one.decides for one in found] == ["large effects", "not measured", "large effects"]
    assert (found[1].parts[0].reason, found[1].can_contradict) == ("no controls", False)


def weakest(found: list[ClaimPower], claim: str) -> tuple[ClaimPower, PartPower]:
    (one,) = (one for one in found if one.claim == claim)
    assert one.weakest is not None
    return one, one.parts[one.weakest]


@pytest.fixture(scope="module")
def papers_claims(tmp_path_factory: pytest.TempPathFactory) -> list[ClaimPower]:
    """The paper's claims on a pair with two arms, three replicates and a single strength of the pull."""
    folder = tmp_path_factory.mktemp("power")
    text = suite_text("claims", 3, "a").replace("strengths: [0.001, 0.01, 0.1]", "strengths: [0.01]")
    (folder / "suite.yaml").write_text(text.replace("aimp: {levels", "aimp: {budgets: [1], levels"))
    return power(make_plan(load_suite(folder / "suite.yaml")), NOTHING_RECORDED)


@pytest.mark.parametrize(
    ("claim", "reason", "can_contradict"),
    [
        ("C7", "no configurations with both numbers", False),
        ("C8", "of 3 replicates of 2 arms no outcome has a p under 0.12", False),
        ("C11", "a trend needs two doses, and 1 is planned", True),
        ("C15", "no 'ticket, budget 0.5' of early", False),
        ("C23", "3 configurations are planned; a verdict needs 12", False),
    ],
)
def test_claims_that_no_outcome_could_support_are_named_with_the_reason(
    claim: str, reason: str, can_contradict: bool, papers_claims: list[ClaimPower]
) -> None:
    one, part = weakest(papers_claims, claim)
    assert one.decides in ("no", "not measured") and reason in part.reason, part
    assert one.can_contradict == can_contradict


@pytest.mark.parametrize(("arms", "n", "smallest"), [(2, 3, 1 / 8), (3, 2, 1 / 9), (4, 2, 1 / 36)])
def test_no_agreement_of_arms_has_a_smaller_p_than_is_said(arms: int, n: int, smallest: float, tmp_path: Path) -> None:
    patterns = [[bool(number >> arm & 1) for arm in range(arms)] for number in range(2**arms)]
    rows = [[_Cell(str(arm), 1, good, 0.0, good) for arm, good in enumerate(pattern)] for pattern in patterns]
    assert min(_exchange_p([row] * n)[0] for row in rows) == pytest.approx(smallest)
    assert math.comb(arms, arms // 2) ** -float(n) == pytest.approx(smallest)


def test_what_results_choose_counts_as_planned(papers_claims: list[ClaimPower]) -> None:
    matched = next(one for one in papers_claims if one.claim == "C3")
    assert matched.decides == "spread unknown" and matched.parts[0].smallest is not None
    onset = next(one for one in papers_claims if one.claim == "C10")
    assert "is planned" not in onset.parts[0].reason and onset.parts[0].decides != "not measured"


def test_a_choice_without_selection_replicates_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(suite_text("claims", 3, "a").replace("selection_replicates: 1\n", ""))
    suite = load_suite(tmp_path / "suite.yaml").model_copy(update={"selection_replicates": 0})
    _, part = weakest(power(make_plan(suite), NOTHING_RECORDED), "C12")
    assert "selection_replicates" in part.reason


def test_a_spread_is_the_pairs_own_if_recorded_else_assumed_or_that_of_other_pairs() -> None:
    suite = load_suite(SUITES / "resnet20-cifar10.yaml")
    spreads = Spreads.known(SUITES / "resnet20-cifar10.yaml")
    claims, pair = suite.claims, suite.pairs["resnet20-cifar10"]
    recorded = next(r for r in spreads.recorded if r.evidence.name == "lenet-garments")
    accuracy, probe = claims["C4"].tests[1], claims["C17"].tests[1]
    own = spreads.of(accuracy, claims["C4"])("lenet-garments", recorded.pair)
    assert own.value is not None and own.source == "recorded: lenet-garments of tour.yaml, 3 replicates"
    assumed = spreads.of(accuracy, claims["C4"])("resnet20-cifar10", pair)
    assert (assumed.value, assumed.source) == (ASSUMED, ASSUMED_FROM)
    elsewhere = spreads.of(probe, claims["C17"])("resnet20-cifar10", pair)
    assert elsewhere.value is not None and elsewhere.source.startswith("recorded elsewhere: lenet-garments")


def test_a_recorded_spread_is_that_of_the_recorded_numbers() -> None:
    spreads = Spreads.known(SUITES / "tour.yaml")
    claims = load_suite(SUITES / "tour.yaml").claims
    recorded = next(r for r in spreads.recorded if r.evidence.name == "lenet-garments")
    ticket, reinit = (
        [recorded.evidence.values(s, "test_accuracy", 4)[r] for r in range(3)]
        for test in (claims["C4"].tests[1],)
        for s in (test.plus[0], test.minus[0])
    )
    expected = float(np.std(np.subtract(ticket, reinit), ddof=1))
    found = spreads.of(claims["C4"].tests[1], claims["C4"])("lenet-garments", recorded.pair)
    assert found.value == pytest.approx(expected, rel=1e-6)


def test_a_pairs_suite_decides_all_that_its_file_does_not_except() -> None:
    suite = SUITES / "lenet-fashion.yaml"
    found = power(make_plan(load_suite(suite), Subset(replicates=1)), Spreads.known(suite))
    # A difference of differences is in C6.
    assert {one.claim for one in found if one.decides in ("large effects", "no")} == {"C6"}


# What is planned of one pair: many rates of learning, one of them the arm's own, and doses of the pull.
CONFIGURATIONS = """\
title: power
replicates: REPLICATES
selection_replicates: 1
claims: [claims.yaml]
pairs:
  a:
    model: {name: lenet-300-100, width: 10}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 300}
    recipe: {steps: 3ep, batch_size: 64, optimizer: {name: sgd, lr: 0.05}}
    arms: {early: {class: early}, late: {class: late, recipe: {optimizer: {lr: 0.2}}}}
    claim_levels: {range: [1]}
    experiments:
      imp: {levels: 1}
      regulariser: {arms: [late], strengths: STRENGTHS, levels: [1]}
      sensitivity: {arms: [early], levels: [1], grid: [0it, 5it], vary: {optimizer.lr: RATES}}
"""
RANK = """\
C1:
  sentence: Ranks.
  origin: abstract
  experiments: [sensitivity]
  tests:
    - what: ranks
      test: rank
      method: METHOD
      than: THAN
      minimum: 12
      of: [{x: {arm: "*", variant: "{config}"}, y: {arm: "*", variant: "{config}: barrier", metric: onset}}]
"""
TREND = """\
C1:
  sentence: Trend.
  origin: abstract
  experiments: [regulariser, imp]
  tests:
    - what: ascends
      test: trend
      doses: {arm: late, variant: "pull {dose} in search"}
      none: {late: ticket}
"""
MIXED = """\
C1:
  sentence: Moves.
  origin: abstract
  experiments: [sensitivity]
  tests:
    - what: further
      test: mixed
      over: configurations
      rows:
        recipe: {of: {arm: "*", variant: "{config}: ticket"}, covariates: {moved: {arm: "*", variant: "{config}"}}}
      fixed: FIXED
      tested: moved
"""


def of_configurations(folder: Path, claims: str, rates: int = 14, replicates: int = 5, doses: int = 3) -> PartPower:
    """What one test can find on that pair."""
    (folder / "claims.yaml").write_text(claims)
    text = CONFIGURATIONS.replace("REPLICATES", str(replicates))
    text = text.replace("RATES", str([0.01 * number for number in range(1, rates + 1)]))
    text = text.replace("STRENGTHS", str([0.001 * 2**number for number in range(doses)]))
    (folder / "suite.yaml").write_text(text)
    (found,) = power(make_plan(load_suite(folder / "suite.yaml")), NOTHING_RECORDED)
    (part,) = found.parts
    assert found.alpha == 0.05
    return part


def chance(smallest: float, bound: float, error: float, alpha: float = 0.05) -> float:
    """With what chance a correlation of that size is found above a bound, by Fisher's z with such an error."""
    critical = math.atanh(bound) + error * NormalDist().inv_cdf(1 - alpha)
    return 1 - NormalDist(math.atanh(smallest), error).cdf(critical)


@pytest.mark.parametrize(
    ("method", "than", "variance", "unit"), [("spearman", 0, 1.06 / 11, "rho"), ("kendall", 0.3, 0.437 / 10, "tau")]
)
def test_a_rank_correlation_of_the_reported_size_is_found_four_times_in_five(
    method: str, than: float, variance: float, unit: str, tmp_path: Path
) -> None:
    part = of_configurations(tmp_path, RANK.replace("METHOD", method).replace("THAN", str(than)))
    assert part.smallest is not None and than < part.smallest < 0.9
    assert chance(part.smallest, than, math.sqrt(variance)) == pytest.approx(0.8)
    assert (part.decides, part.unit) == ("yes", f"{unit} over 14 configurations")


def test_configurations_decide_as_soon_as_there_are_as_many_as_the_test_needs(tmp_path: Path) -> None:
    ranks = RANK.replace("METHOD", "spearman").replace("THAN", "0.6")
    few, enough = (of_configurations(tmp_path, ranks, rates) for rates in (11, 12))
    assert (few.decides, few.reason) == ("no", "11 configurations are planned; a verdict needs 12")
    assert (enough.decides, enough.reason) == ("large effects", "only nearly perfect orders")
    assert enough.smallest is not None and 0.9 < enough.smallest < 1


@pytest.mark.parametrize(("fixed", "free"), [("[moved]", 11), ("[moved, level]", 10)])
def test_a_coefficient_over_configurations_is_found_as_a_partial_correlation(
    fixed: str, free: int, tmp_path: Path
) -> None:
    part = of_configurations(tmp_path, MIXED.replace("FIXED", fixed))
    assert part.smallest is not None and chance(part.smallest, 0, 1 / math.sqrt(free)) == pytest.approx(0.8)
    assert part.unit == "partial correlation over 14 configurations", "the arm's own rate stands among the 14 rates"


def test_a_coefficient_needs_four_configurations_and_one_for_each_term_beside_it(tmp_path: Path) -> None:
    few, enough = (of_configurations(tmp_path, MIXED.replace("FIXED", "[moved, level]"), rates) for rates in (3, 4))
    assert (few.decides, few.reason) == ("no", "4 configurations are planned for 2 terms; the test needs 5")
    assert enough.decides == "large effects" and enough.smallest == pytest.approx(math.tanh(2.4865), rel=1e-4)


def test_a_trend_of_the_reported_size_is_found_four_times_in_five(tmp_path: Path) -> None:
    part = of_configurations(tmp_path, TREND)
    # Without a trend the mean of n rank correlations of k doses varies by 1 / sqrt(n (k - 1)); here k is 4 with none.
    error = 1 / math.sqrt(5 * 3)
    assert part.smallest == pytest.approx(error * (1.6449 + 0.8416), rel=1e-4)
    assert (part.decides, part.unit) == ("yes", "rho with the dose")
    one = of_configurations(tmp_path, TREND, doses=1)
    assert (one.decides, one.reason) == ("no", "a trend needs two doses, and 1 is planned")
    two = of_configurations(tmp_path, TREND, doses=2, replicates=2)
    assert (two.decides, two.smallest) == ("large effects", 1.0), "no correlation is above 1"
    assert of_configurations(tmp_path, TREND, doses=2, replicates=1).decides == "no"


def test_the_first_two_replicates_decide_and_a_single_one_has_no_spread(tmp_path: Path) -> None:
    one, two = (planned(tmp_path, contrast(), n, a=False)[0].parts[0] for n in (1, 2))
    assert (one.decides, one.reason) == ("no", "1 replicates have no spread; the test needs 2")
    assert two.decides == "large effects" and two.smallest is not None


def test_a_model_over_replicates_needs_three_of_them(tmp_path: Path) -> None:
    model = MIXED.replace("      over: configurations\n", "").replace("FIXED", "[moved]")
    two, three = (of_configurations(tmp_path, model, replicates=n) for n in (2, 3))
    assert (two.decides, two.reason) == ("no", "2 replicates have no spread; the test needs 3")
    assert three.decides == "spread unknown" and three.smallest is not None


def test_what_is_found_exactly_where_it_matters_is_decided(tmp_path: Path) -> None:
    smallest = planned(tmp_path, contrast(), 3, a=False)[0].parts[0].smallest
    (part,) = planned(tmp_path, contrast().replace("0.5", repr(smallest)), 3, a=False)[0].parts
    assert (part.smallest, part.matters, part.decides) == (smallest, smallest, "yes")


def test_a_reason_says_whether_an_effect_is_found_or_equivalence_shown(tmp_path: Path) -> None:
    (found,) = planned(tmp_path, contrast(), 3, a=False)[0].parts
    equivalent = contrast().replace("margin: 0.5", "expected: equivalent, margin: 0.5")
    (shown,) = planned(tmp_path, equivalent, 3, a=False)[0].parts
    assert found.reason == f"found where it is {found.smallest:.2g} pp, where 0.5 would matter"
    assert shown.reason == f"equivalence is shown within {shown.smallest:.2g} pp, where 0.5 would matter"
    assert found.smallest is not None and shown.smallest is not None and shown.smallest > found.smallest


ONSET = """C1:
  sentence: Earlier.
  origin: abstract
  experiments: [sensitivity]
  tests:
    - what: earlier
      test: onset
      earlier: {arm: early, variant: "as it is: barrier"}
      later: {arm: early, variant: "optimizer.lr = 0.02: barrier"}
"""


@pytest.mark.parametrize(("spread", "decides"), [(None, "spread unknown"), (1.0, "yes"), (30.0, "large effects")])
def test_an_onset_is_found_as_other_means_are_and_is_large_beyond_all_that_were_published(
    spread: float | None, decides: str, tmp_path: Path
) -> None:
    (tmp_path / "claims.yaml").write_text(ONSET)
    text = CONFIGURATIONS.replace("REPLICATES", "3").replace("RATES", "[0.02]").replace("STRENGTHS", "[1.0]")
    (tmp_path / "suite.yaml").write_text(text)
    known: Any = SimpleNamespace(of=lambda test, claim: lambda name, pair: Spread(spread, "here"))
    (found,) = power(make_plan(load_suite(tmp_path / "suite.yaml")), known)
    (mean,) = planned(tmp_path, contrast(), 3, a=False)[0].parts
    (part,) = found.parts
    assert part.decides == decides and mean.smallest is not None
    assert part.smallest == pytest.approx(mean.smallest / ASSUMED * (spread or 1.0))
    assert part.unit == ("standard deviations" if spread is None else "% of training")
    assert ("published onsets are all within 20 %" in part.reason) == (decides == "large effects")


def with_tests(*tests: str) -> str:
    """A claim with some tests of tickets against others, each in the words of YAML that tell it from those."""
    head = "C1:\n  sentence: s\n  origin: abstract\n  experiments: [imp, controls]\n  tests:\n"
    one = "    - {what: w, test: contrast, plus: {early: ticket}, minus: {early: %s}, %s}\n"
    return head + "".join(one % tuple(test.split(", ", 1)) for test in tests)


@pytest.mark.parametrize(("margins", "weakest"), [((0.5, 0.4), 1), ((0.4, 0.5), 0)])
def test_the_weakest_test_is_that_whose_smallest_effect_is_furthest_above_what_matters(
    margins: tuple[float, float], weakest: int, tmp_path: Path
) -> None:
    (found,) = planned(tmp_path, with_tests(*(f"dense, margin: {margin}" for margin in margins)), 3, a=False)
    assert (found.weakest, found.decides, found.can_contradict) == (weakest, "large effects", True)


def test_a_claim_with_a_test_that_only_some_pairs_measure_is_shared_by_all_pairs_that_measure_any(
    tmp_path: Path,
) -> None:
    found = planned(tmp_path, with_tests("dense, margin: 0.5", "reinit, margin: 0.5"), 5, a=True, b=False)
    assert [one.alpha for one in found] == [0.025, 0.025]
    assert [part.decides for part in found[1].parts] == ["large effects", "not measured"]
    assert (found[1].decides, found[1].can_contradict) == ("no", True), "one test that fails is enough"


def test_what_is_only_reported_decides_and_contradicts_nothing(tmp_path: Path) -> None:
    (found,) = planned(tmp_path, with_tests("dense, counts: false"), 5, a=False)
    assert (found.decides, found.can_contradict, found.weakest) == ("reported only", False, None)


def test_that_another_claim_holds_is_decided_as_that_claim_is(tmp_path: Path) -> None:
    other = CONTRAST.replace("C1", "C2").split("    - ")[0] + "    - {what: as C1, test: claim, claim: C1}\n"
    claims = (contrast() + other).replace("EXPERIMENTS", "imp")
    one, same = planned(tmp_path, claims, 3, a=False)
    assert (same.claim, same.decides, same.parts[0].reason) == ("C2", one.decides, "as C1")
    assert same.parts[0].smallest == one.parts[0].smallest
    elsewhere = claims.replace("  tests:", "  pairs: [b]\n  tests:", 1)
    found = {(one.claim, one.pair): one for one in planned(tmp_path, elsewhere, 3, a=False, b=False)}
    assert (found["C2", "a"].decides, found["C2", "a"].parts[0].reason) == ("not measured", "C1 is not about this pair")


def test_a_further_look_takes_its_share_of_the_level(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(contrast())
    text = "title: t\nreplicates: 3\nlooks: 2\nclaims: [claims.yaml]\npairs:\n" + PAIR.format(name="a", controls="")
    (tmp_path / "suite.yaml").write_text(text)
    (found,) = power(make_plan(load_suite(tmp_path / "suite.yaml")), NOTHING_RECORDED)
    assert found.alpha == 0.025


def test_configurations_of_another_pair_do_not_count_for_this_one(tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(RANK.replace("METHOD", "spearman").replace("THAN", "0"))
    text = CONFIGURATIONS.replace("REPLICATES", "3").replace("STRENGTHS", "[1.0]")
    pair = text.split("pairs:\n")[1]
    rates = [pair.replace("RATES", str([0.01 * number for number in range(1, count)])) for count in (15, 4)]
    text = text.split("pairs:\n")[0] + "pairs:\n" + rates[0] + rates[1].replace("  a:", "  b:", 1)
    (tmp_path / "suite.yaml").write_text(text)
    reasons = [one.parts[0].reason for one in power(make_plan(load_suite(tmp_path / "suite.yaml")), NOTHING_RECORDED)]
    assert reasons == ["", "4 configurations are planned; a verdict needs 12"]
