"""What a budget buys: whole replicates, never more than it pays for, and exactly what the printed options run."""

from __future__ import annotations

import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from test_part import OTHER, PARTS

from lthbench.suite.budget import Prices, left_out, parse_budget, propose
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.subset import Subset
from lthbench.suite.yaml_tree import SuiteError


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    path = tmp_path_factory.mktemp("budget") / "two.yaml"
    path.write_text(TINY.replace("replicates: 1", "replicates: 5").rstrip() + OTHER)
    return make_plan(load_suite(path))


@pytest.mark.parametrize("part", PARTS, ids=lambda part: " ".join(part.options()))
def test_the_price_of_a_part_is_that_of_its_own_plan(plan: Plan, part: Subset) -> None:
    assert Prices(plan, plan.cost).of(part) == pytest.approx(sum(make_plan(plan.suite, part).cost.values()))


@settings(max_examples=25)
@given(share=st.floats(1e-6, 1.5))
def test_a_proposal_never_costs_more_than_the_budget(plan: Plan, share: float) -> None:
    budget = share * sum(plan.cost.values())
    proposal = propose(plan, plan.cost, budget)
    if proposal.part is None:
        assert proposal.seconds > budget
    else:
        assert 0 < proposal.seconds <= budget
        assert proposal.seconds == pytest.approx(sum(make_plan(plan.suite, proposal.part).cost.values()))


def test_replicates_are_given_up_before_anything_else_until_three_are_left(plan: Plan) -> None:
    whole = (1 + 1e-9) * sum(plan.cost.values())  # prices are added in another order
    assert propose(plan, plan.cost, whole).part == Subset()
    assert propose(plan, plan.cost, 0.99 * whole).part == Subset(replicates=4)
    assert propose(plan, plan.cost, 0.61 * whole).part == Subset(replicates=3)
    less = propose(plan, plan.cost, 0.59 * whole).part
    assert less is not None and less.replicates == 3 and less != Subset(replicates=3)


def test_a_small_budget_buys_three_replicates_of_the_cheapest_pair(plan: Plan) -> None:
    prices = Prices(plan, plan.cost)
    core = ("controls", "imp", "rewound", "stability")
    first = Subset(core, ("wide",), ("late", "early"), 3, 2)
    assert prices.of(first) < prices.of(Subset(core, ("tiny",), ("late", "early"), 3, 2))
    found = propose(plan, plan.cost, prices.of(first))
    assert found.part is not None
    assert (found.part.pairs, found.part.replicates, found.part.levels) == (("wide",), 3, 2)
    assert left_out(plan.suite, found.part)["pairs"] == ["tiny"]


def test_less_than_that_buys_fewer_levels_and_then_fewer_replicates(plan: Plan) -> None:
    one = Prices(plan, plan.cost).of(Subset(("imp",), ("wide",), (), 1, 1))
    found = propose(plan, plan.cost, 1.01 * one).part
    assert found is not None and (found.pairs, found.replicates, found.levels) == (("wide",), 1, 1)
    assert propose(plan, plan.cost, 0.99 * one).part is None


def test_what_is_done_costs_nothing(plan: Plan) -> None:
    done = set(make_plan(plan.suite, Subset(replicates=4)).tasks)
    left = {key: 0.0 if key in done else cost for key, cost in plan.cost.items()}
    assert propose(plan, left, Prices(plan, left).of(Subset())).part == Subset()


@pytest.mark.parametrize(
    ("text", "found"), [("200gpuh", (200, "gpuh")), ("1.5 GPUh", (1.5, "gpuh")), ("48cpuh", (48, "cpuh"))]
)
def test_budgets_are_hours_of_a_device(text: str, found: tuple[float, str]) -> None:
    assert parse_budget(text) == found


@pytest.mark.parametrize("text", ["200", "gpuh", "-3gpuh", "0cpuh", "2h", "1e3gpuh", "200 gpuhours", ""])
def test_any_other_budget_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SuiteError, match="200gpuh or 48cpuh"):
        parse_budget(text)
