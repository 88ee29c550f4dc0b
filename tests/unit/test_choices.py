"""What is chosen (a strength, what a control is matched to) is chosen by replicates that no test uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from lthbench.analysis.claims.evidence import Evidence
from lthbench.analysis.claims.judge import judge
from lthbench.analysis.points import MeasuredPoint
from lthbench.analysis.table import ResultRow, summarise
from lthbench.experiments import Cell
from lthbench.experiments.cell import FIRST_SELECTION_REPLICATE
from lthbench.experiments.regulariser import Regulariser
from lthbench.runner.slurm.lane_job import _adopts
from lthbench.runner.slurm.lanes import LaneOwner
from lthbench.suite.budget import Prices
from lthbench.suite.claim_tests import Contrast
from lthbench.suite.cost import plan_cost
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.schema import Suite
from lthbench.suite.subset import Subset
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.spec import MaskSpec, Task, TrainSpec
from lthbench.tasks.start import anchors_of, start_of
from lthbench.tasks.store import Store

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)
SELECTION = (FIRST_SELECTION_REPLICATE, FIRST_SELECTION_REPLICATE + 1)
CLAIMS = """\
C11:
  sentence: The pull improves late tickets.
  origin: inferred
  experiments: [imp, regulariser]
  choose: {among: {arm: late, variant: "pull {chosen} in search"}}
  tests:
    - {what: more accurate, test: contrast, plus: {late: "pull {chosen} in search"}, minus: {late: ticket}, margin: 1}
"""
SUITE = """\
title: t
replicates: REPLICATES
selection_replicates: 2
claims: [claims.yaml]
pairs:
  p:
    model: {name: lenet-300-100, width: 10}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 300}
    recipe: {steps: 10ep, batch_size: 64, optimizer: {name: sgd, lr: 0.05}}
    arms: {early: {class: early}, late: {class: late, recipe: {optimizer: {lr: 0.2}}}}
    claim_levels: {range: [2]}
    experiments:
      imp: {levels: 2}
      regulariser: {arms: [late], strengths: [1e-5, 1e-4, 1e-3, 1e-2], controls: [low-lr, early-stopping], levels: [2]}
"""


def suite(folder: Path, replicates: int = 2, *, selection: int = 2, text: str = SUITE) -> Suite:
    (folder / "claims.yaml").write_text(CLAIMS)
    text = text.replace("REPLICATES", str(replicates)).replace(
        "replicates: 2\nclaims", f"replicates: {selection}\nclaims"
    )
    (folder / "suite.yaml").write_text(text)
    return load_suite(folder / "suite.yaml")


def measured(random: np.random.Generator, replicates: range, gains: Mapping[float, float]) -> Iterator[MeasuredPoint]:
    """Tickets without a pull and under each; both splits see a replicate's and a network's own quality."""
    for r in (*SELECTION, *replicates):
        shared = random.normal(0.9, 0.003)
        for strength in (0, *STRENGTHS):
            quality = shared + random.normal(0, 0.003) + gains.get(strength, 0.0)
            numbers = {f"{split}_accuracy": quality + random.normal(0, 0.0005) for split in ("test", "validation")}
            experiment, variant = ("regulariser", f"pull {strength:g} in search") if strength else ("imp", "ticket")
            if strength or r not in SELECTION:
                yield MeasuredPoint("p", experiment, "late", r, variant, 2, 0.64, 0, "ok", numbers, f"{variant}/{r}")


def p_of_the_chosen(loaded: Suite, random: np.random.Generator, gains: Mapping[float, float]) -> float:
    """The one-sided p of what a claim chooses in a simulated suite, against the tickets without a pull."""
    (claim,) = loaded.claims.values()
    points = measured(random, range(loaded.replicates), gains)
    evidence = Evidence("p", loaded.pairs["p"], loaded.tested(), points)
    evidence.choose(claim.choose)
    (test,) = claim.tests
    assert isinstance(test, Contrast)
    pulled, plain = (evidence.values(side[0], "test_accuracy", 2) for side in (test.plus, test.minus))
    assert list(pulled) == list(plain) == list(range(loaded.replicates)), "replicates that choose are in no test"
    return float(stats.ttest_rel(list(pulled.values()), list(plain.values()), alternative="greater").pvalue)


@pytest.mark.parametrize("n", [3, 10])
def test_a_chosen_strength_is_supported_in_one_null_suite_of_twenty_and_a_planted_one_is_found(
    n: int, tmp_path: Path
) -> None:
    """Chosen by the tested networks, 12 to 13 % of null suites would be: a network's luck is seen by both splits."""
    loaded, random, suites = suite(tmp_path, n), np.random.default_rng(n), 500
    null = sum(p_of_the_chosen(loaded, random, {}) <= 0.05 for _ in range(suites))
    assert null <= stats.binom.ppf(0.999, suites, 0.05)
    planted = dict(zip(STRENGTHS, (0, 0.004, 0.007, 0.010), strict=True))
    found = sum(p_of_the_chosen(loaded, random, planted) <= 0.05 for _ in range(suites // 5))
    assert found >= stats.binom.ppf(0.001, suites // 5, 0.76 if n == 3 else 0.99)


def only(points: Iterable[MeasuredPoint], *, selection: bool) -> list[MeasuredPoint]:
    return [point for point in points if point.is_selection == selection]


def test_nothing_is_chosen_by_the_replicates_that_are_tested(tmp_path: Path) -> None:
    loaded = suite(tmp_path, 5, selection=0)
    points = only(measured(np.random.default_rng(0), range(5), {1e-2: 0.1}), selection=False)
    (verdict,) = judge(loaded, points, {}, "suite.yaml")
    assert verdict.outcome == "not run"
    assert "among 1e-05, 0.0001, 0.001, 0.01" in verdict.reason and "selection_replicates: 2" in verdict.reason


def test_a_single_candidate_needs_no_choice(tmp_path: Path) -> None:
    loaded = suite(tmp_path, 5, selection=0)
    points = only(measured(np.random.default_rng(0), range(5), {1e-2: 0.1}), selection=False)
    points = [point for point in points if point.variant in ("ticket", "pull 0.01 in search")]
    (verdict,) = judge(loaded, points, {}, "suite.yaml")
    assert verdict.outcome == "supported" and verdict.n == 5


def test_a_choice_waits_for_all_its_candidates(tmp_path: Path) -> None:
    points = list(measured(np.random.default_rng(0), range(5), {1e-2: 0.1}))
    last = max(index for index, point in enumerate(points) if point.is_selection)
    points[last] = replace(points[last], status="missing", numbers={})
    (verdict,) = judge(suite(tmp_path, 5), points, {}, "suite.yaml")
    assert verdict.outcome == "not run" and "'pull 0.01 in search'" in verdict.reason


def test_selection_replicates_are_in_no_summary() -> None:
    place = ("ticket", 2, 0.64, 0, 0.0, 0.0, "test_accuracy", 0.5, "k")
    rows = [ResultRow("p", "imp", "late", r, *place) for r in (*SELECTION, 0, 1)]
    assert [summary.interval.n for summary in summarise(rows)] == [2]


def test_selection_replicates_are_planned_for_what_choices_rest_on(tmp_path: Path) -> None:
    loaded = suite(tmp_path)
    plan = make_plan(loaded)
    assert {p.cell.replicate for p in plan.measurements} == {0, 1, *SELECTION}
    chooses = {p.measurement.variant for p in plan.measurements if p.cell.is_selection}
    assert chooses == {f"pull {s:g} in search" for s in STRENGTHS} | {
        f"{control} for pull {s:g}, matching" for s in STRENGTHS for control in ("low-lr", "early-stopping")
    }
    assert not any("matching" in p.measurement.variant for p in plan.measurements if not p.cell.is_selection)
    fewer = make_plan(loaded, Subset(replicates=1))
    assert {p.cell.replicate for p in fewer.measurements} == {0, *SELECTION}
    one = make_plan(
        suite(tmp_path, text=SUITE.replace("1e-5, 1e-4, 1e-3, 1e-2", "1e-2").replace("[low-lr, early-stopping]", "[]"))
    )
    assert not any(p.cell.is_selection for p in one.measurements)
    more = suite(tmp_path, 3)
    assert plan.tasks.keys() <= make_plan(more).tasks.keys(), "a replicate more leaves all others as they are"


def knowing(loaded: Suite, result_of: Callable[[Task], Mapping[str, Any] | None]) -> dict[int, Cell]:
    """Replicate -> the cell of the late arm."""
    return {cell.replicate: cell for cell in loaded.cells(result_of) if cell.arm == "late"}


@pytest.mark.parametrize("control", ["weight-decay", "early-stopping", "low-lr"])
def test_a_control_is_matched_by_the_mean_of_the_selection_replicates_and_held_for_all(
    control: Any, tmp_path: Path
) -> None:
    """Every tested replicate has another distance; one that was matched for itself would have another setting."""

    def planted(task: Task) -> Mapping[str, Any] | None:
        spec = task.spec
        if not isinstance(spec, TrainSpec) or spec.mask:
            return None
        own = {0: 3.0, 1: 0.3, SELECTION[0]: 1.2, SELECTION[1]: 0.8}[spec.seed]
        share = (spec.stop or 50) / 50
        value = 0.5 * own if spec.recipe.pull and spec.anchor == 0 else (spec.recipe.optimizer.lr / 0.2 * share) ** 0.5
        if spec.anchor == "zero":
            value *= 1 - 0.5 * min(1, spec.recipe.pull / 0.001) ** 0.5
        curve = [(n / 10) ** 0.5 for n in range(1, 11)]
        return {"status": "ok", "metrics": {"distance_relative": value, "distance": value}, "epoch_distances": curve}

    cells = knowing(suite(tmp_path), planted)
    experiment = Regulariser(strengths=(0.001,), controls=(control,), places=(), levels=(1,))
    found = {r: list(experiment.measurements(cell)) for r, cell in cells.items()}
    settings = set()
    for r in (0, 1):
        (spec,) = {x.others[0].spec for x in found[r] if x.variant == f"{control} for pull 0.001"}
        assert isinstance(spec, TrainSpec) and spec.seed == r
        settings.add((spec.recipe, spec.stop, spec.anchor))
    ((recipe, stop, anchor),) = settings
    assert not any(measurement.selects for r in (0, 1) for measurement in found[r])
    assert all(x.task.spec.seed == r for r in SELECTION for x in found[r] if x.selects)
    match control:
        case "low-lr":
            assert recipe.optimizer.lr == pytest.approx(0.2 * 0.5**2, rel=0.05)
        case "early-stopping":
            assert stop == pytest.approx(50 * 0.5**2, abs=1)
        case "weight-decay":
            assert (anchor, recipe.pull) == ("zero", 0.001)


def test_a_lane_continues_with_its_own_replicate_and_the_lane_of_a_selection_replicate_with_all_of_these(
    tmp_path: Path,
) -> None:
    plan: Plan = make_plan(suite(tmp_path))
    key_of = {cell.replicate: key for key, cell in plan.cells.items() if "regulariser" in plan.users[key]}

    def adopted(replicate: int, experiment: str = "regulariser") -> set[int]:
        home = LaneOwner("p", "late", replicate, experiment)
        return {of for of, key in key_of.items() if _adopts(home, plan, key)}

    assert adopted(0) == {0}
    assert adopted(SELECTION[0]) == adopted(SELECTION[1]) == set(SELECTION)
    assert adopted(0, "onset") == set()


def test_a_part_with_fewer_replicates_costs_what_it_plans_and_selection_is_counted_apart(tmp_path: Path) -> None:
    loaded = suite(tmp_path, 3)
    plan, part = make_plan(loaded), Subset(replicates=1)
    fewer = make_plan(loaded, part)
    assert Prices(plan, dict.fromkeys(plan.tasks, 1.0)).of(part) == len(fewer.tasks)
    (line,) = [row for row in plan_cost(plan, Store(tmp_path)) if row.name == "selection replicates"]
    assert line.tasks == sum(cell.is_selection for cell in plan.cells.values()) > 0


def in_full(folder: Path, **changes: str) -> Suite:
    text = SUITE.replace("controls: [low-lr, early-stopping]", "controls: [other-init], in_full: chosen")
    for before, after in changes.items():
        text = text.replace(before, after)
    return suite(folder, text=text)


def test_the_strength_that_claims_choose_is_the_one_run_in_full(tmp_path: Path) -> None:
    """Accuracies of selection replicates are planted so that their mean is best where neither alone is."""
    planted = dict(zip(STRENGTHS, ((0.9, 0.1), (0.6, 0.6), (0.1, 0.9), (0.5, 0.5)), strict=True))

    def result_of(task: Task) -> dict[str, Any] | None:
        spec = task.spec
        if not isinstance(spec, TrainSpec) or spec.mask is None or spec.recipe.pull:
            return None
        pull = next((t.inputs[0].spec.recipe.pull for t in task.inputs if isinstance(t.spec, MaskSpec)), 0)  # type: ignore[union-attr]
        if not pull:
            return None
        accuracy = planted[pull][spec.seed - SELECTION[0]] if spec.seed in SELECTION else float(pull == 1e-2)
        return {"status": "ok", "metrics": {"validation_accuracy": accuracy, "test_accuracy": accuracy}}

    loaded = in_full(tmp_path)
    first = {p.measurement.variant for p in make_plan(loaded).measurements if p.experiment == "regulariser"}
    assert first == {f"pull {s:g} in search" for s in STRENGTHS}
    tasks: dict[str, Task] = {}

    def known(key: str) -> dict[str, Any] | None:
        return result_of(tasks[key]) if key in tasks else None

    plan = make_plan(loaded)
    while plan.tasks.keys() - tasks.keys():
        tasks.update(plan.tasks)
        plan = make_plan(loaded, result_of=known)
    more = {
        p.measurement.variant for p in plan.measurements if p.experiment == "regulariser" and not p.cell.is_selection
    }
    assert more - first == {"pull 0.0001 in both", "pull 0.0001 in training", "other-init for pull 0.0001"}
    assert {p.measurement.variant for p in plan.measurements if p.cell.is_selection} == first
    evidence = Evidence("p", loaded.pairs["p"], loaded.tested(), (
        MeasuredPoint("p", p.experiment, p.cell.arm, p.cell.replicate, m.variant, m.level, 0.64, 0,
              "ok", result_of(m.task)["metrics"] if result_of(m.task) else {}, m.task.key)
        for p in plan.measurements for m in (p.measurement,)
    ))  # fmt: skip
    evidence.choose(loaded.claims["C11"].choose)
    assert evidence.chosen == "0.0001"
    later = set(loaded.pairs["p"].experiments["regulariser"].later())
    assert {(variant, 2) for variant in more - first} < later, "what is planned later is known to be"


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("selection_replicates: 2", "selection_replicates: 0", r"in_full: chosen by no replicates"),
        ("validation: 100", "validation: 0", r"in_full: chosen by validation accuracy"),
        ("in_full: chosen", "in_full: chosen, places: [both]", "places needs search"),
    ],
)
def test_a_strength_that_nothing_can_choose_is_a_fault_of_the_suite(
    before: str, after: str, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(SuiteError, match=fault):
        in_full(tmp_path, **{before: after})


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_as_a_control_is_the_pulls_own_penalty_with_its_centre_in_0(
    optimizer: str, tmp_path: Path
) -> None:
    """Of the same weights, at first as strong, and in the gradient, which AdamW's own weight decay is not."""
    text = SUITE.replace("name: sgd", f"name: {optimizer}, weight_decay: 1e-4")
    cell = knowing(suite(tmp_path, text=text), lambda task: None)[SELECTION[0]]
    experiment = Regulariser(strengths=(0.001,), places=("search",), controls=("weight-decay",), levels=(1,))
    dense = {r.variant.split()[0]: r.task.spec for r in experiment.measurements(cell) if r.level == 0}
    pull, decay = dense["pull"], dense["weight-decay"]
    assert isinstance(pull, TrainSpec) and pull.recipe.pull == 0.001
    assert decay == pull.model_copy(update={"anchor": "zero"})
    context: Any = SimpleNamespace(device=torch.device("cpu"))
    own, zero = (anchors_of(spec, start_of(spec, context), context) for spec in (pull, decay))
    assert own.keys() == zero.keys() == {"fc1.weight", "fc2.weight", "fc.weight"}
    assert not any(anchor.any() for anchor in zero.values()) and all(anchor.any() for anchor in own.values())
