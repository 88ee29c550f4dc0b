"""What a budget buys for claims: never more than it pays for, never fewer for more, and the best there is."""

from __future__ import annotations

import itertools

import pytest
from test_power import CONTRAST, NOTHING_RECORDED, PAIR

from lthbench.analysis.claims.affordable import Affordable, Powers, affordable, within
from lthbench.suite.budget import Prices
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.subset import Subset

COUNTS = range(1, 9)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two pairs, one with three times the images; C1 needs the tickets alone, C2 also the controls."""
    folder = tmp_path_factory.mktemp("affordable")
    one, two = CONTRAST.replace("OTHER", "dense"), CONTRAST.replace("OTHER", "reinit").replace("C1", "C2")
    (folder / "claims.yaml").write_text(one.replace("EXPERIMENTS", "imp") + two.replace("EXPERIMENTS", "imp, controls"))
    controls = ", controls: {levels: [1, 2]}"
    pairs = PAIR.format(name="a", controls=controls) + PAIR.format(name="b", controls=controls).replace("300}", "900}")
    (folder / "suite.yaml").write_text(f"title: t\nreplicates: {max(COUNTS)}\nclaims: [claims.yaml]\npairs:\n{pairs}")
    return make_plan(load_suite(folder / "suite.yaml"))


@pytest.fixture(scope="module")
def parts(plan: Plan) -> list[Affordable]:
    return affordable(Powers(plan, NOTHING_RECORDED), Prices(plan, plan.cost))


def test_without_a_budget_nothing_is_bought(parts: list[Affordable]) -> None:
    assert within(parts, 0.0) == Affordable()


def test_a_larger_budget_never_decides_fewer_claims_and_the_whole_price_decides_all_that_can_be_decided(
    parts: list[Affordable],
) -> None:
    bought = [within(parts, share * parts[-1].seconds) for share in (0, 0.1, 0.2, 0.4, 0.6, 0.8, 1)]
    worths = [one.worth for one in bought]
    assert worths == sorted(worths) and len(set(worths)) > 3
    assert bought[-1].decided == {(claim, pair) for claim in ("C1", "C2") for pair in "ab"}


def test_a_proposal_costs_what_its_options_plan_and_decides_what_it_says(plan: Plan, parts: list[Affordable]) -> None:
    powers = Powers(plan, NOTHING_RECORDED)
    for one in parts[1:]:
        plans = [make_plan(plan.suite, part) for part in one.parts]
        assert one.seconds == pytest.approx(sum({k: c for p in plans for k, c in p.cost.items()}.values()))
        assert one.seconds == pytest.approx(Prices(plan, plan.cost).of(*one.parts))
        found = {(p.claim, p.pair) for part in one.parts for p in powers.of(part) if p.decides == "yes"}
        assert found == one.decided


def test_no_other_part_decides_more_for_the_money(plan: Plan, parts: list[Affordable]) -> None:
    powers, prices = Powers(plan, NOTHING_RECORDED), Prices(plan, plan.cost)
    experiments = ((), ("imp",), ("controls",), ("controls", "imp"))
    for count in COUNTS:
        of_pair = {
            (name, labels): Subset(labels, (name,), replicates=count) for name in "ab" for labels in experiments[1:]
        }
        decided = {key: sum(p.decides == "yes" for p in powers.of(part)) for key, part in of_pair.items()}
        for both in itertools.product(experiments, repeat=2):
            chosen = [(name, labels) for name, labels in zip("ab", both, strict=True) if labels]
            price = prices.of(*(of_pair[key] for key in chosen)) if chosen else 0.0
            assert len(within(parts, price * (1 + 1e-9)).decided) >= sum(decided[key] for key in chosen)


def test_a_claim_is_bought_without_the_experiments_that_it_does_not_need(parts: list[Affordable]) -> None:
    first = next(one for one in parts if one.decided)
    assert first.decided == {("C1", "a")} and first.parts[0].experiments == ("imp",)
    assert first.parts[0].replicates is not None and first.parts[0].pairs == ("a",)
