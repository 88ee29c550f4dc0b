"""What a suite can decide, told from its plan alone: against simulated verdicts, and against the tests themselves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from planted import suite_text

from lthbench.analysis.claims.configuration_tests import _Cell, _exchange_p
from lthbench.analysis.claims.decide import outcome_of, rule
from lthbench.analysis.claims.power import ClaimPower, TestPower, power
from lthbench.analysis.claims.spreads import ASSUMED, ASSUMED_FROM, Spreads
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
def test_an_effect_of_the_size_told_is_found_four_times_in_five(replicates: int, tmp_path: Path) -> None:
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


def weakest(found: list[ClaimPower], claim: str) -> tuple[ClaimPower, TestPower]:
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
