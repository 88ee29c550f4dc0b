"""Every experiment end to end on a narrow network, and the mathematics of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, plan_of, run_here
from hypothesis import given
from hypothesis import strategies as st

from lthbench.analysis.points import points
from lthbench.analysis.table import ResultRow, results_table
from lthbench.data.few_shot import few_shot
from lthbench.data.loading import load
from lthbench.experiments import Cell
from lthbench.experiments.aimp import with_budget
from lthbench.experiments.generalisation import Transfer
from lthbench.experiments.regulariser import pulled
from lthbench.experiments.sensitivity import with_value
from lthbench.experiments.stability import Onset
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.mask import random_mask, shuffled_mask
from lthbench.tasks.paths import MASK, weights_file
from lthbench.tasks.spec import Task
from lthbench.tasks.store import Store
from lthbench.tasks.tensor_files import read_mask, read_tensors
from lthbench.training.streams import stream

EXPERIMENTS = """\
      lr-rewinding: {levels: 2}
      controls: {kinds: [reinit, random, shuffled, shuffled-weights, one-shot, movement], levels: [2]}
      crossed-masks: {levels: [1]}
      level-barriers: {levels: [1, 2], points: 3}
      distance: {levels: [0, 1], points: 2}
      sparse-stability: {kind: stability, spawns: [0it], levels: [1], points: 3}
      onset: {grid: [0it, 2it, 1ep, 2ep], points: 5}
      aimp: {budgets: [1, 0.5], levels: [1]}
      aimp-truncated: {kind: aimp, budgets: [1, 0.5], schedule: truncated, levels: [1]}
      regulariser:
        arms: [late]
        strengths: [0.5]
        weight_decay: [kept, replaced]
        controls: [weight-decay, other-init, early-stopping, low-lr]
        levels: [1]
      frozen-features: {levels: [1], budgets: [1, 0.5], normalisation: [batch, estimated, none, affine]}
      few-shot: {per_class: [1, 5], draws: 2, steps: 4it, levels: [1]}
      few-shot-elsewhere:
        kind: few-shot
        target: {name: fashion-mnist-10k, classes: [7, 9]}
        per_class: [2]
        draws: 2
        steps: 4it
        levels: [1]
      transfer:
        targets:
          - {data: {name: fashion-mnist-10k, num_train: 200}, steps: 1ep}
          - {data: {name: fashion-mnist-10k, classes: [5, 7, 9], validation: 30, num_train: 200}, steps: 1ep}
        native: true
        levels: [1]
      convergence: {levels: [1], every: 2it}
      sensitivity:
        arms: [early]
        vary: {optimizer.lr: [0.01, 0.2], batch_size: [32], label_smoothing: [0.1]}
        levels: [1]
        grid: [0it, 1ep]
        points: 3
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """A store in which every experiment has run, those that plan by results included."""
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "suite.yaml").write_text(TINY[: TINY.index("      imp:")] + EXPERIMENTS)
    suite, store = load_suite(folder / "suite.yaml"), Store(folder / "store")
    plan = make_plan(suite)
    for _ in range(20):
        run_here(plan, store.root)
        grown = make_plan(suite, result_of=store.result)
        if grown.tasks.keys() == plan.tasks.keys():
            return grown, store
        plan = grown
    raise AssertionError("the plan never ended")


def test_an_experiment_gives_no_variant_and_no_metric_but_those_its_kind_declares(run: tuple[Plan, Store]) -> None:
    """What claims may name is checked against these when a suite is loaded, before anything has run."""
    plan, store = run
    kinds = plan.suite.pairs["tiny"].experiments
    undeclared = set()
    for point in points(plan, store):
        kind = type(kinds[point.experiment])
        if not any(fnmatchcase(point.variant, known) for known in kind.variants):
            undeclared.add((kind.__name__, point.variant))
        undeclared |= {
            (kind.__name__, metric)
            for metric in point.numbers
            if not any(fnmatchcase(metric, known) for known in kind.metrics)
        }
    assert not undeclared


def test_what_results_add_to_a_plan_is_announced_but_for_trainings_of_matching(run: tuple[Plan, Store]) -> None:
    """`lthbench plan` counts on it where it says which claims can be decided."""
    grown = {(r.experiment, r.measurement.variant) for r in run[0].measurements}
    at_first = {(r.experiment, r.measurement.variant) for r in make_plan(run[0].suite).measurements}
    kinds = run[0].suite.pairs["tiny"].experiments
    announced = {(label, variant) for label, kind in kinds.items() for variant, _ in kind.later()}
    assert announced <= grown
    assert {variant for _, variant in grown - at_first - announced if not variant.endswith(", matching")} == set()


@pytest.fixture(scope="module")
def rows(run: tuple[Plan, Store]) -> list[ResultRow]:
    return results_table(*run)


def of(rows: list[ResultRow], experiment: str, metric: str) -> dict[tuple[str, str], float]:
    """(arm, variant) -> value of one experiment and metric."""
    return {(r.arm, r.variant): r.value for r in rows if r.experiment == experiment and r.metric == metric}


def test_every_experiment_measures_something(run: tuple[Plan, Store], rows: list[ResultRow]) -> None:
    assert {r.experiment for r in rows} == set(run[0].suite.pairs["tiny"].experiments)
    assert all(r.value == r.value for r in rows), "no number is NaN"


def metrics(run: tuple[Plan, Store], task: Task) -> dict[str, Any]:
    result = run[1].result(task.key)
    assert result is not None
    return result


def weights(run: tuple[Plan, Store], task: Task) -> dict[str, torch.Tensor]:
    return read_tensors(run[1].folder(task.key) / weights_file(None))[0]


@pytest.fixture
def early(run: tuple[Plan, Store]) -> Cell:
    return next(iter(run[0].suite.cells(lambda task: run[1].result(task.key))))


def test_a_probe_leaves_all_but_the_output_layer_bitwise_unchanged(run: tuple[Plan, Store], early: Cell) -> None:
    mask = early.mask(1)
    start = early.train(mask=mask, noise=1, probe="estimated")
    probed = weights(run, start)
    masks = read_mask(run[1].folder(mask.key) / MASK)  # type: ignore[union-attr]
    from lthbench.tasks.network import make_network, set_initial_weights, weights_of

    model = make_network(early.model, early.data, torch.device("cpu"))
    set_initial_weights(model, early.model, early.replicate)
    for name, t in weights_of(model).items():
        if not name.startswith("fc."):
            assert torch.equal(probed[name], torch.where(masks[name], t, 0.0) if name in masks else t)
    assert metrics(run, start)["metrics"]["test_accuracy"] > 0.3, "random features beat guessing by far"


@pytest.mark.parametrize("rule", ["estimated", "affine"])
def test_a_probe_has_a_dense_output_layer_on_masked_features_whose_density_is_told(
    run: tuple[Plan, Store], early: Cell, rule: str
) -> None:
    mask = early.mask(1)
    probe = early.train(mask=mask, noise=1, probe=rule)
    masks = read_mask(run[1].folder(mask.key) / MASK)  # type: ignore[union-attr]
    assert weights(run, probe)["fc.weight"][~masks["fc.weight"]].any()
    features = {name: m for name, m in masks.items() if name != "fc.weight"}
    assert not any(weights(run, probe)[name][~m].any() for name, m in features.items())
    found = metrics(run, probe)
    share = sum(int(m.sum()) for m in features.values()) / sum(m.numel() for m in features.values())
    assert found["metrics"]["density"] == share and found["layer_density"]["fc.weight"] == 1
    assert not [name for name in found["metrics"] if "distance" in name or name == "overlap"]
    other = metrics(run, early.train(mask=mask, noise=1, probe="estimated"))
    assert found["metrics"]["untrained_test_accuracy"] == other["metrics"]["untrained_test_accuracy"]


def test_a_probe_agrees_with_an_independent_logistic_regression(run: tuple[Plan, Store], early: Cell) -> None:
    """At the chosen penalty, the gradient of the regularised loss vanishes at the fitted layer."""
    task = early.train(noise=1, probe="estimated")
    fitted = weights(run, task)
    images = load(early.data).train
    x = images.batch(torch.arange(len(images))).flatten(1).double()
    w = {name: t.double() for name, t in fitted.items()}
    h = (x @ w["fc1.weight"].T + w["fc1.bias"]).relu()
    h = (h @ w["fc2.weight"].T + w["fc2.bias"]).relu()
    std = h.std(0).clamp_min(1e-8)
    scaled = (w["fc.weight"] * std).requires_grad_()
    logits = (h - h.mean(0)) / std @ scaled.T + (w["fc.bias"] + w["fc.weight"] @ h.mean(0))
    penalty = metrics(run, task)["metrics"]["penalty"]
    loss = torch.nn.functional.cross_entropy(logits, images.labels) + penalty / 2 * scaled.square().sum()
    (gradient,) = torch.autograd.grad(loss, scaled)
    assert gradient.abs().max() < 1e-3


def test_no_pull_is_the_same_task_as_no_regulariser(early: Cell) -> None:
    assert early.with_search(pulled(early.search, 0, "replaced")).ticket(2).key == early.ticket(2).key


def test_a_strong_pull_keeps_the_weights_near_their_initialisation(run: tuple[Plan, Store], early: Cell) -> None:
    near = early.with_search(pulled(early.search, 10, "kept")).searched(0)
    _, store = run_here(plan_of(run[0], early, near, early.dense()), run[1].root)
    distances = [metrics((run[0], store), task)["metrics"]["distance_relative"] for task in (near, early.dense())]
    assert distances[0] < 0.2 * distances[1]


def test_matched_controls_reach_the_distance_that_they_are_to_match(rows: list[ResultRow]) -> None:
    reached = of(rows, "regulariser", "search_distance")
    target = reached["late", "pull 0.5 in search"]
    assert abs(reached["late", "low-lr for pull 0.5"] / target - 1) < 0.15
    assert abs(reached["late", "early-stopping for pull 0.5"] / target - 1) < 0.15
    told = of(rows, "regulariser", "target_distance")
    assert told["late", "low-lr for pull 0.5"] == told["late", "early-stopping for pull 0.5"] == target


def test_the_whole_budget_is_iterative_magnitude_pruning_key_for_key(early: Cell) -> None:
    for schedule in ("compressed", "truncated"):
        assert with_budget(early, 1, schedule).mask(2).key == early.mask(2).key  # type: ignore[arg-type, union-attr]
    half = with_budget(early, 0.5, "compressed").search
    assert early.iterations(half.steps) * 2 == pytest.approx(early.iterations(early.search.steps), abs=1)


def test_a_truncated_search_stops_early_in_the_same_schedule(run: tuple[Plan, Store], early: Cell) -> None:
    whole, half = early.searched(0), with_budget(early, 0.5, "truncated").searched(0)
    assert metrics(run, half)["steps"] == [0, round(0.5 * metrics(run, whole)["steps"][1])]
    assert metrics(run, half)["epoch_losses"][0] == metrics(run, whole)["epoch_losses"][0]


def test_a_transfer_to_the_source_is_the_source_key_for_key(early: Cell) -> None:
    transfer = Transfer(targets=({"data": early.data},), ways=("train",), networks=("ticket",), levels=(2,))
    (measurement,) = transfer.measurements(early)
    assert measurement.task.key == early.ticket(2).key


def test_a_transferred_network_has_a_new_dense_head_and_the_sources_mask(run: tuple[Plan, Store], early: Cell) -> None:
    moved = early.train(mask=early.mask(1), noise=1, new_head=True)
    _, store = run_here(plan_of(run[0], early, moved), run[1].root)
    density = metrics((run[0], store), moved)["layer_density"]
    source = metrics(run, early.mask(1))["layer_density"]  # type: ignore[arg-type]
    assert density["fc.weight"] == 1 and source["fc.weight"] < 1
    assert density["fc1.weight"] == source["fc1.weight"]


def test_crossed_masks_are_the_other_arms_own_masks(early: Cell) -> None:
    late = early.with_arm("late")
    assert late.mask(1).key != early.mask(1).key  # type: ignore[union-attr]
    crossed = early.train(mask=late.mask(1), noise=1)
    assert late.mask(1).key in {task.key for task in crossed.inputs}  # type: ignore[union-attr]
    assert crossed.key not in (early.ticket(1).key, late.ticket(1).key)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_few_shot_draws_are_balanced_and_nested(one: int, two: int, seed: int) -> None:
    labels = torch.arange(60) % 7 % 5
    small, large = (
        set(few_shot(labels, n, lambda c: stream(seed, "subset", 0, c)).tolist()) for n in sorted((one, two))
    )
    assert small <= large
    assert torch.bincount(labels[sorted(large)]).tolist() == [max(one, two)] * 5


def test_two_few_shot_draws_differ() -> None:
    labels = torch.arange(600) % 10
    draws = [few_shot(labels, 5, lambda c, d=d: stream(0, "subset", d, c)).tolist() for d in (0, 1)]
    assert draws[0] != draws[1]


@given(st.integers(0, 10**6), st.floats(0.05, 0.95))
def test_random_and_shuffled_masks_keep_layer_densities(seed: int, density: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    like = {
        "a": torch.rand(9, 7, generator=generator) < density,
        "c": torch.rand(6, 5, 3, 3, generator=generator) < 0.3,
    }
    for imitate in (random_mask, shuffled_mask):
        mask = imitate(like, seed, 1)
        assert {n: int(m.sum()) for n, m in mask.items()} == {n: int(m.sum()) for n, m in like.items()}
    for dim in (0, 1):
        rows = [sorted(m["a"].sum(1 - dim).tolist()) for m in (like, shuffled_mask(like, seed, 1))]
        assert rows[0] == rows[1], "a shuffled mask keeps the densities of units"


@given(st.integers(0, 8))
def test_bisection_finds_a_planted_onset(onset: int) -> None:
    """Whatever the first stable step of eight is (8: none), it is found, with as few lines as bisection needs."""
    cell = next(iter(load_suite_text().cells()))
    experiment = Onset(grid=tuple(f"{n}it" for n in range(8)), verify=False)
    steps_of: dict[str, int] = {}

    def planted(task: Task) -> Mapping[str, Any]:
        return {"status": "ok", "metrics": {"validation_barrier": 0.001 if steps_of[task.key] >= onset else 0.3}}

    known = replace(cell, result_of=planted)
    for step in range(8):
        for line in experiment.lines(known, experiment.family(known, step), "interpolate"):
            steps_of[line.key] = step
    measurements = list(experiment.measurements(known))
    found = measurements[-1].numbers([{"status": "ok", "metrics": {}, "epoch_losses": [0.5]}])
    assert found["onset_above"] == onset - 1
    assert found.get("onset") == (onset if onset < 8 else None)
    assert len(measurements) - 1 <= 4


def load_suite_text() -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "suite.yaml").write_text(TINY)
        return load_suite(Path(folder) / "suite.yaml")


def test_an_onset_that_is_not_yet_known_plans_no_further_than_the_middle(early: Cell) -> None:
    unknown = replace(early, result_of=lambda task: None)
    measurements = list(Onset(grid=("0it", "1it", "2it", "3it")).measurements(unknown))
    assert [measurement.variant for measurement in measurements] == ["barrier"]


def test_the_path_is_at_least_as_long_as_the_distance(rows: list[ResultRow]) -> None:
    values = {m: {(r.key): r.value for r in rows if r.metric == m} for m in ("distance", "path_length")}
    assert values["path_length"]
    assert all(values["path_length"][key] >= 0.999 * values["distance"][key] for key in values["path_length"])


def test_a_tracked_training_ends_in_the_bits_of_the_plain_one(run: tuple[Plan, Store], early: Cell) -> None:
    plain, tracked = (metrics(run, t) for t in (early.dense(), early.dense().with_fields(track=2)))
    assert tracked["digests"] == plain["digests"] and tracked["epoch_losses"] == plain["epoch_losses"]
    assert tracked["validation_curve"][-1] == [15, plain["metrics"]["validation_accuracy"]]
    assert "validation_curve" not in plain and "forgetting_events" not in plain["metrics"]


def test_the_sparse_solution_is_compared_with_the_masked_dense_one(run: tuple[Plan, Store], early: Cell) -> None:
    dense, ticket = weights(run, early.dense()), weights(run, early.ticket(2))
    mask = read_mask(run[1].folder(early.mask(2).key) / MASK)  # type: ignore[union-attr]
    squares = sum(float((ticket[n] - torch.where(m, dense[n], 0.0)).double().square().sum()) for n, m in mask.items())
    line = early.line(early.dense(), early.ticket(2), points=3)
    found = metrics(run, line)["metrics"]
    assert found["distance_shared"] == pytest.approx(squares**0.5)
    assert found["distance_shared"] < found["distance"]


def test_a_varied_recipe_differs_in_its_one_value(early: Cell) -> None:
    assert with_value(early.recipe, "optimizer.lr", 0.05) == early.recipe
    varied = with_value(early.recipe, "schedule.warmup", "1ep")
    assert str(varied.schedule.warmup) == "1ep" and varied.optimizer == early.recipe.optimizer
