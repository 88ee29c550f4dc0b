"""Parts of a suite: always tasks of the whole, and what a part needs comes along."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY

from lthbench.suite.budget import Prices, left_out
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.schema import Suite
from lthbench.suite.subset import Subset
from lthbench.suite.ticket_task import cell_of
from lthbench.suite.yaml_tree import SuiteError

OTHER = """
  wide:
    model: {name: lenet-300-100, width: 20}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 300}
    recipe: {steps: 2ep, batch_size: 64, optimizer: {name: sgd, lr: 0.05}}
    arms: {early: {}, late: {recipe: {optimizer: {lr: 0.2}}}}
    experiments: {imp: {levels: 3}, crossed-masks: {levels: [1, 3]}}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    (tmp_path / "two.yaml").write_text(TINY.replace("replicates: 1", "replicates: 3").rstrip() + OTHER)
    return load_suite(tmp_path / "two.yaml")


PARTS = [
    Subset(experiments=("imp",)),
    Subset(pairs=("wide",)),
    Subset(arms=("late",)),
    Subset(replicates=2),
    Subset(levels=1),
    Subset(("imp", "stability"), ("tiny", "wide"), ("early",), 1, 1),
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: " ".join(part.options()))
def test_a_part_is_smaller_than_the_whole_and_of_the_same_tasks(suite: Suite, part: Subset) -> None:
    whole, some = make_plan(suite), make_plan(suite, part)
    assert 0 < len(some.tasks) < len(whole.tasks)
    assert set(some.tasks) < set(whole.tasks)
    assert all(task.key in some.tasks for key in some.tasks for task in some.tasks[key].inputs)
    assert all(some.kept(key) <= whole.kept(key) for key in some.tasks)


def test_a_part_has_only_what_it_names(suite: Suite) -> None:
    read = make_plan(suite, Subset(("imp",), ("wide",), ("late",), 2, 2)).measurements
    assert {(r.experiment, r.cell.pair, r.cell.arm) for r in read} == {("imp", "wide", "late")}
    assert {r.cell.replicate for r in read} == {0, 1}
    assert {r.measurement.level for r in read} == {0, 1, 2}


def test_the_mask_of_an_arm_that_is_left_out_is_searched_where_a_crossed_mask_needs_it(suite: Suite) -> None:
    plan = make_plan(suite, Subset(("crossed-masks",), ("wide",), ("late",), 1))
    rates = {task.spec.recipe.optimizer.lr for task in plan.tasks.values() if task.spec.kind == "train"}
    assert rates == {0.05, 0.2}
    assert {r.cell.arm for r in plan.measurements} == {"late"}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Subset(experiments=("aimp",)), "--only aimp: no experiment of the suite is called so; known: controls"),
        (Subset(pairs=("narrow",)), "--pair narrow: no pair of the suite is called so; known: tiny, wide"),
        (Subset(arms=("medium",)), "--arm medium: no arm of the suite is called so; known: early, late"),
        (Subset(replicates=4), "--replicates 4: the suite has 3; give 1 to 3, or raise `replicates` in its file"),
    ],
)
def test_a_part_that_the_suite_does_not_have_is_named_with_what_there_is(
    suite: Suite, part: Subset, message: str
) -> None:
    with pytest.raises(SuiteError) as raised:
        make_plan(suite, part)
    assert message in str(raised.value)


def test_a_suite_with_another_first_replicate_shares_none_with_the_same_suite_without_it(suite: Suite) -> None:
    pilot = suite.model_copy(update={"first_replicate": 1000})
    assert {cell.replicate for cell in pilot.cells()} == {1000, 1001, 1002}
    assert {r.cell.replicate for r in make_plan(pilot, Subset(replicates=2)).measurements} == {1000, 1001}
    assert make_plan(pilot).tasks.keys().isdisjoint(make_plan(suite).tasks)
    assert [c.arm for c in pilot.cells()] == [c.arm for c in suite.cells()]


def test_a_suite_with_another_first_replicate_is_checked_priced_and_divided_as_any(
    suite: Suite, tmp_path: Path
) -> None:
    pilot = suite.model_copy(update={"first_replicate": 1000})
    plan = make_plan(pilot)
    two = Subset(replicates=2)
    assert Prices(plan, plan.cost).of(two) == pytest.approx(sum(make_plan(pilot, two).cost.values()))
    assert left_out(pilot, two)["replicates"] == ["1002"]
    with pytest.raises(SuiteError, match="give 1000 to 1002"):
        cell_of(pilot, "tiny", "late", 0)
    (tmp_path / "pilot.yaml").write_text(TINY.replace("replicates: 1", "replicates: 1\nfirst_replicate: 1000"))
    assert load_suite(tmp_path / "pilot.yaml").tested() == range(1000, 1001)
