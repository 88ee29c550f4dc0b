"""What experiments make of results, with planted ones: nothing is trained here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.analysis.claims.wording import named
from lthbench.experiments import EXPERIMENTS, Cell
from lthbench.experiments.controls import CONTROLS, Controls, Kind
from lthbench.experiments.convergence import Convergence
from lthbench.experiments.distance import Distance
from lthbench.experiments.generalisation import FewShot, FrozenFeatures, Transfer
from lthbench.experiments.imported import Imported
from lthbench.experiments.regulariser import MATCHED_WITHIN, Regulariser
from lthbench.experiments.sensitivity import Sensitivity
from lthbench.experiments.stability import Onset, Stability, noise_scale
from lthbench.models.spec import ModelSpec
from lthbench.suite.claim_tests import Selection
from lthbench.suite.load import load_suite
from lthbench.suite.schema import Suite
from lthbench.tasks.spec import InterpolateSpec, Task, TrainSpec
from lthbench.training.learning_distance import top_overlap
from lthbench.training.recipe import AdamW

SUITES = Path(__file__).parents[2] / "suites"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    path = tmp_path_factory.mktemp("laws") / "suite.yaml"
    path.write_text(TINY)
    return next(iter(load_suite(path).cells()))


@cache
def tour() -> Suite:
    return load_suite(SUITES / "tour.yaml")


@cache
def tour_cell() -> Cell:
    """A cell of the tour: 9,000 train images, batches of 64, 10 epochs."""
    return next(cell for cell in tour().cells() if cell.pair == "lenet-fashion-10k")


def knowing(cell: Cell, result_of: Callable[[Task], Mapping[str, Any] | None]) -> Cell:
    return replace(cell, result_of=result_of)


CHANGES: dict[str, Callable[[Cell], Any]] = {
    "model": lambda cell: ModelSpec(name="lenet-300-100", width=20),
    "data": lambda cell: cell.data.model_copy(update={"validation": cell.data.validation + 10}),
    "pruning": lambda cell: cell.pruning.model_copy(update={"rate": 0.5}),
    "recipe": lambda cell: cell.recipe.model_copy(update={"batch_size": 7}),
    "search": lambda cell: cell.search.model_copy(update={"batch_size": 7}),
    "replicate": lambda cell: cell.replicate + 1,
    "search_anchor": lambda cell: "zero",
    "search_stop": lambda cell: 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_cell_has_its_own_masks_and_not_those_of_the_cell_before(tiny: Cell, name: str) -> None:
    changed = {name: CHANGES[name](tiny)}
    before = tiny.mask(2, rewind=1)
    after = replace(tiny, **changed).mask(2, rewind=1)
    values = {f.name: getattr(tiny, f.name) for f in fields(tiny) if f.init}
    assert before is not None and after is not None
    assert after.key == Cell(**(values | changed)).mask(2, rewind=1).key != before.key  # type: ignore[union-attr]


def test_every_control_has_a_row_in_the_table_and_all_experiments_know_it() -> None:
    assert tuple(CONTROLS) == get_args(Kind) == Controls.variants
    for kind in CONTROLS:
        assert kind in Convergence.variants
        assert f"probe of {kind}, estimated" in FrozenFeatures.variants
        assert " '" not in named(Selection(arm="late", variant=kind)), "verdicts have a noun for it"


@given(curve=st.lists(st.floats(0, 1), min_size=1, max_size=9), dense=st.floats(0, 1), share=st.floats(0.5, 1))
def test_convergence_is_the_first_measurement_at_the_share_of_the_dense_accuracy(
    curve: list[float], dense: float, share: float
) -> None:
    results = [
        {"validation_curve": [[10 * (n + 1) + 3, a] for n, a in enumerate(curve)], "steps": [3, 103]},
        {"metrics": {"validation_accuracy": dense}},
    ]
    found = Convergence(levels=(1,), share=share).convergence(results, per_epoch=20)
    reached = [10 * (n + 1) for n, accuracy in enumerate(curve) if accuracy >= share * dense]
    assert found["converged"] == bool(reached)
    assert found.get("steps_to_converge") == (reached[0] if reached else None)
    assert found.get("epochs_to_converge") == (reached[0] / 20 if reached else None)
    assert found.get("share_to_converge") == (reached[0] / 100 if reached else None)
    assert found["share_unconverged"] == ((reached[0] - 10) / 100 if reached else 1)


def test_convergence_needs_validation_images(tiny: Cell) -> None:
    bare = replace(tiny, data=tiny.data.model_copy(update={"validation": 0}))
    (fault,) = Convergence(levels=(1,)).faults(bare)
    assert "validation" in fault.message and not list(Convergence(levels=(1,)).faults(tiny))


@settings(deadline=None)
@given(st.integers(0, 4), st.integers(0, 4))
def test_a_recipe_is_classed_by_its_onset_against_the_arms_own(own: int, other: int) -> None:
    cell = tour_cell()
    experiment = Sensitivity(vary={"batch_size": (128,)}, grid=("0it", "1ep", "2ep", "3ep"), levels=())
    onset_of = {64: own, 128: other}

    def planted(task: Task) -> Mapping[str, Any] | None:
        if isinstance(task.spec, InterpolateSpec):
            a = task.inputs[0].spec
            assert isinstance(a, TrainSpec)
            epoch = a.begin // a.recipe.steps_per_epoch(9000)
            stable = epoch >= onset_of[a.recipe.batch_size]
            return {"status": "ok", "metrics": {"validation_barrier": 0.0 if stable else 0.5}}
        return None

    compared = [
        measurement.numbers([{"status": "ok", "metrics": {}, "epoch_losses": [1.0]}])["stable_earlier"]
        for measurement in experiment.measurements(knowing(cell, planted))
        if measurement.variant == "batch_size = 128: onset" and not measurement.metrics
    ]
    assert compared == [float((other < own) - (other > own))]


@settings(deadline=None)
@given(st.floats(0.02, 0.9), st.sampled_from(["early-stopping", "low-lr"]))
def test_matching_finds_the_search_whose_distance_is_that_of_the_pulled_one(target: float, control: str) -> None:
    """Distances planted as a smooth growing function of the rate and of the iterations are matched to 2 %."""
    cell = tour_cell()
    total = cell.iterations(cell.search.steps)

    def distance(task: Task) -> float:
        spec = task.spec
        assert isinstance(spec, TrainSpec)
        if spec.recipe.pull:
            return target
        share = (spec.stop or total) / total
        return (spec.recipe.optimizer.lr / cell.search.optimizer.lr) ** 0.5 * share**0.5

    def planted(task: Task) -> Mapping[str, Any] | None:
        if not isinstance(task.spec, TrainSpec) or task.spec.mask:
            return None
        epochs = [(n / 10) ** 0.5 for n in range(1, 11)]
        value = distance(task)
        return {
            "status": "ok",
            "metrics": {"distance_relative": value, "distance": 7 * value},
            "epoch_distances": [7 * e for e in epochs],
        }

    known = knowing(cell, planted)
    experiment = Regulariser(strengths=(0.01,), controls=(control,), places=(), levels=(1,))
    dense = next(r.others[0] for r in experiment.measurements(known) if r.variant == f"{control} for pull 0.01")
    step = 0.5 / total / target**2  # half the change of distance that one iteration makes, relative to the target
    assert abs(distance(dense) / target - 1) <= MATCHED_WITHIN + step


@settings(deadline=None)
@given(st.floats(-2, 1), st.floats(0.1, 0.9))
def test_a_penalty_towards_0_is_matched_as_nearly_as_possible(turn: float, target: float) -> None:
    """Distances planted as falling up to a strength, and rising beyond it."""
    cell = tour_cell()

    def reached(strength: float) -> float:
        return 0.5 + 0.2 * abs(math.log10(strength / 0.01) - turn)

    def planted(task: Task) -> Mapping[str, Any] | None:
        if not isinstance(task.spec, TrainSpec) or task.spec.mask:
            return None
        value = reached(task.spec.recipe.pull) if task.spec.anchor == "zero" else target
        return {"status": "ok", "metrics": {"distance_relative": value}}

    experiment = Regulariser(strengths=(0.01,), controls=("weight-decay",), places=(), levels=(1,))
    measurements = list(experiment.measurements(knowing(cell, planted)))
    (spec,) = {r.others[0].spec for r in measurements if r.variant == "weight-decay for pull 0.01"}
    assert isinstance(spec, TrainSpec) and spec.anchor == "zero" and spec.recipe.pull
    assert spec.recipe.optimizer == cell.search.optimizer
    nearest = max(target, 0.5)
    assert abs(reached(spec.recipe.pull) - nearest) < max(MATCHED_WITHIN * target, 0.1), spec.recipe.pull


@pytest.mark.parametrize("control", ["weight-decay", "early-stopping", "low-lr"])
def test_nothing_is_matched_to_a_pulled_training_that_diverged(tiny: Cell, control: str) -> None:
    diverged = knowing(tiny, lambda task: {"status": "diverged", "metrics": {}})
    experiment = Regulariser(strengths=(0.01,), controls=(control,), places=(), levels=(1,))
    assert {r.variant for r in experiment.measurements(diverged)} == {f"{control} for pull 0.01, matching"}


FULL: dict[str, Any] = {
    "metrics": {
        "distance_relative": 0.3,
        "distance": 2.0,
        "validation_accuracy": 0.8,
        "test_accuracy": 0.8,
        "validation_barrier": 0.1,
    },
    "epoch_distances": [0.2 * n for n in range(1, 11)],
    "epoch_losses": [1.0 / n for n in range(1, 11)],
    "validation_curve": [(141 * n, 0.08 * n) for n in range(1, 11)],
    "layer_distance": {"a": 0.5},
    "layer_overlap": {"a": 0.9},
    "steps": (0, 1410),
}


@pytest.mark.parametrize("status", ["ok", "diverged", "refused"])
@pytest.mark.parametrize("lacks", [(), *((name,) for name in (*FULL["metrics"], *FULL)), (*FULL["metrics"], *FULL)])
def test_no_experiment_stops_at_a_result_that_lacks_a_number(status: str, lacks: tuple[str, ...]) -> None:
    result = {"status": status, **{name: value for name, value in FULL.items() if name not in lacks}}
    result["metrics"] = {name: value for name, value in FULL["metrics"].items() if name not in lacks}
    suite = tour()
    for cell in (cell for cell in suite.cells(lambda task: result) if (cell.arm, cell.replicate) == ("late", 0)):
        for experiment in suite.pairs[cell.pair].experiments.values():
            for measurement in experiment.measurements(cell):
                numbers = measurement.numbers([result] * (1 + len(measurement.others)))
                assert all(map(math.isfinite, numbers.values())), (measurement.variant, numbers)


@pytest.mark.parametrize("control", ["weight-decay", "early-stopping", "low-lr"])
def test_nothing_is_matched_to_a_pulled_training_without_a_distance(tiny: Cell, control: str) -> None:
    experiment = Regulariser(strengths=(0.01,), controls=(control,), places=(), levels=(1,))
    bare = knowing(tiny, lambda task: {"status": "ok", "metrics": {}})
    assert {r.variant for r in experiment.measurements(bare)} == {f"{control} for pull 0.01, matching"}


def test_the_distance_along_training_ends_at_that_of_the_whole_training(tiny: Cell) -> None:
    result = {
        "status": "ok",
        "metrics": {"distance": 4.0, "distance_rms": 0.2, "distance_relative": 0.5},
        "epoch_distances": [1.0, 3.0, 4.0],
        "layer_distance": {"a": 0.5},
        "layer_overlap": {"a": 0.9},
    }
    measurements = list(Distance(levels=(0,)).measurements(tiny))
    along = [r for r in measurements if r.variant == "dense, along training"]
    assert [r.step for r in along] == [5, 10, 15]
    assert along[0].numbers([result]) == {"distance": 1.0, "distance_rms": 0.05, "distance_relative": 0.125}
    assert along[-1].numbers([result]) == result["metrics"]
    (layers,) = [r for r in measurements if r.variant == "dense, by layer"]
    assert layers.numbers([result]) == {"distance_relative/a": 0.5, "overlap/a": 0.9}


@given(st.lists(st.floats(0.01, 1), min_size=5, max_size=60, unique=True), st.integers(0, 999), st.floats(0.1, 9))
def test_the_largest_weights_stay_the_largest_under_scaling_signs_and_permutation(
    values: list[float], seed: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = torch.tensor(values, dtype=torch.float64)
    signs = torch.randint(0, 2, start.shape, generator=generator) * 2 - 1
    assert top_overlap(start, scale * signs * start, None) == 1
    end = torch.rand(start.shape, generator=generator)
    order = torch.randperm(len(values), generator=generator)
    assert top_overlap(start, end, None) == top_overlap(start[order], end[order], None)
    mask = start >= start.median()
    assert top_overlap(start, torch.where(mask, start, 99.0), mask) == 1, "only survivors count"


def test_the_largest_weights_of_an_unrelated_network_overlap_by_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(100_000, generator=generator) for _ in range(2))
    assert math.isclose(top_overlap(a, b, None), 0.2, abs_tol=0.01)


def test_statistics_are_measured_both_ways_where_batches_have_any(tiny: Cell) -> None:
    experiment = Stability(spawns=("0it",), statistics=("interpolate", "recompute"))
    resnet = replace(tiny, model=ModelSpec(name="resnet8", width=2))
    for cell, num_tasks in ((tiny, 1), (resnet, 2)):
        lines = [r for r in experiment.measurements(cell) if r.variant != "child"]
        assert [r.variant for r in lines] == ["barrier", "barrier, recomputed statistics"]
        assert len({r.task.key for r in lines}) == num_tasks


def test_several_pairs_of_children_are_compared(tiny: Cell) -> None:
    measurements = list(Stability(spawns=("0it",), children=4).measurements(tiny))
    assert len({r.task.key for r in measurements if r.variant == "child"}) == 4
    assert len({r.task.key for r in measurements if r.variant == "barrier"}) == 6


def test_the_search_budget_reaches_probes_few_shot_and_transfer(tiny: Cell) -> None:
    options: dict[str, Any] = {"levels": (1,), "networks": ("ticket", "dense"), "budgets": (1, 0.5)}
    few = FewShot(per_class=(1,), draws=1, steps="4it", **options)
    probes = FrozenFeatures(**options)
    moved = Transfer(targets=({"data": tiny.data.model_copy(update={"num_train": 100})},), ways=("train",), **options)
    for experiment in (few, probes, moved):
        measurements = list(experiment.measurements(tiny))
        assert len(measurements) == 3, "the dense network has no search"
        assert len({r.task.key for r in measurements}) == 3
        assert sum("(budget 0.5)" in r.variant for r in measurements) == 1


def test_a_mask_moves_to_other_classes_with_a_new_output_layer(tiny: Cell) -> None:
    shoes = tiny.data.model_copy(update={"classes": (5, 7, 9)})
    measurements = list(Transfer(targets=({"data": shoes},), native=True, levels=(1,)).measurements(tiny))
    for measurement in measurements:
        spec = measurement.task.spec
        assert isinstance(spec, TrainSpec) and spec.data == shoes
        assert spec.new_head == ("native" not in measurement.variant)
    native = next(r.task for r in measurements if r.variant == "train native ticket on fashion-mnist-10k [5 7 9]")
    assert native.key == replace(tiny, data=shoes).ticket(1).key, "found on the target as on any source"


@pytest.mark.parametrize("suite", ["tour", "paper"])
def test_every_experiment_is_in_the_suite(suite: str) -> None:
    pairs = load_suite(SUITES / f"{suite}.yaml").pairs.values()
    made = {type(experiment) for pair in pairs for experiment in pair.experiments.values()}
    assert made == set(EXPERIMENTS.values()) - {Imported}, "which needs files of somebody's"


def test_grids_of_sensitivity_have_at_least_twelve_recipes() -> None:
    grids = [
        sum(len(values) for values in experiment.vary.values())
        for pair in load_suite(SUITES / "paper.yaml").pairs.values()
        for experiment in pair.experiments.values()
        if isinstance(experiment, Sensitivity)
    ]
    assert grids and min(grids) >= 12


def stable_at(pattern: str, measured: list[int] | None = None) -> Callable[[Task], Mapping[str, Any] | None]:
    """Lines whose validation barrier is low (S) or high (U) by where the grid's points 0, 1, 2... epochs begin."""

    def planted(task: Task) -> Mapping[str, Any] | None:
        if not isinstance(task.spec, InterpolateSpec):
            return None
        a = task.inputs[0].spec
        assert isinstance(a, TrainSpec)
        at = a.begin // a.recipe.steps_per_epoch(9000)
        if measured is not None:
            measured.append(at)
        # The test images say the contrary, and nothing is chosen by them.
        return {
            "status": "ok",
            "metrics": {"validation_barrier": 0.5 * (pattern[at] == "U"), "test_barrier": 0.5 * (pattern[at] == "S")},
        }

    return planted


def onset_of(pattern: str, measured: list[int] | None = None, **options: Any) -> dict[str, float]:
    grid = tuple(f"{epoch}ep" for epoch in range(len(pattern)))
    cell = knowing(tour_cell(), stable_at(pattern, measured))
    (measurement,) = [r for r in Onset(grid=grid, **options).measurements(cell) if r.variant == "onset"]
    return measurement.numbers([{"status": "ok", "metrics": {}, "epoch_losses": [1.0]}])


@pytest.mark.parametrize(
    ("pattern", "above", "at"),
    [("SSSSSSSSS", -1, 0), ("USSSSSSSS", 0, 1), ("UUUUUSSSS", 4, 5), ("UUUUUUUUS", 7, 8), ("UUUUUUUUU", 8, None)],
)
def test_the_onset_is_the_first_step_from_which_on_all_are_stable(pattern: str, above: int, at: int | None) -> None:
    found = onset_of(pattern)
    an_epoch = tour_cell().steps_per_epoch()
    assert found["onset_above"] == (above * an_epoch if above >= 0 else -1)
    assert found["onset_above_share"] == max(above, 0) / 10
    if at is None:
        assert found["onset_found"] == 0 and "onset" not in found and "onset_monotone" not in found
    else:
        assert (found["onset_found"], found["onset_monotone"]) == (1, 1)
        assert (found["onset"], found["onset_epoch"], found["onset_share"]) == (at * an_epoch, at, at / 10)


@pytest.mark.parametrize("pattern", ["SSUUSUUSS", "USSSSSSSU", "SSSSSSUSS", "UUUUSSSUS"])
def test_no_onset_is_reported_where_a_later_step_is_unstable(pattern: str) -> None:
    found = onset_of(pattern)
    assert (found["onset_found"], found.get("onset_monotone", 0)) == (0, 0) and "onset" not in found
    assert found["onset_above_epoch"] == pattern.rindex("U")


def test_a_bisection_that_is_not_verified_says_nothing_about_monotonicity() -> None:
    measured: list[int] = []
    assert "onset_monotone" not in onset_of("UUSSSSSSS", measured, verify=False)
    assert set(measured) == {4, 1, 2}
    assert "onset_monotone" not in onset_of("UUSSSSSSSS"), "ten steps are not verified unless asked for"


def test_the_same_share_of_two_lengths_is_a_single_point_of_the_grid() -> None:
    """2.5 % of 1,410 iterations are 35, of 710 18: .0248 and .0254 of training."""
    experiment = Sensitivity(vary={"batch_size": (128,)}, grid=("0it", "2.5%", "10%"))

    def planted(task: Task) -> Mapping[str, Any] | None:
        if not isinstance(task.spec, InterpolateSpec):
            return None
        a = task.inputs[0].spec
        assert isinstance(a, TrainSpec)
        return {"status": "ok", "metrics": {"validation_barrier": 0.5 * (a.begin == 0)}}

    found = {
        metric: value
        for measurement in experiment.measurements(knowing(tour_cell(), planted))
        if measurement.variant == "batch_size = 128: onset"
        for metric, value in measurement.numbers([{"status": "ok", "metrics": {}, "epoch_losses": [1.0]}]).items()
    }
    assert (found["onset"], found["stable_earlier"]) == (18, 0)


def test_an_onset_needs_validation_images(tiny: Cell) -> None:
    bare = replace(tiny, data=tiny.data.model_copy(update={"validation": 0}))
    (fault,) = Onset(grid=("0it", "1ep")).faults(bare)
    assert "give the pair's data a `validation`" in fault.message


def test_shares_that_are_one_iteration_of_a_short_training_are_refused(tiny: Cell) -> None:
    (fault,) = Onset(grid=("1%", "2%")).faults(tiny)
    assert fault.message == "2% does not come after 1%; the grid ascends"


def test_only_sgd_has_a_noise_scale() -> None:
    cell = tour_cell()
    assert noise_scale(cell) == pytest.approx(0.02 * 9000 / (64 * 0.1))

    def with_optimizer(optimizer: Any) -> Cell:
        return replace(cell, recipe=cell.recipe.model_copy(update={"optimizer": optimizer}))

    assert noise_scale(with_optimizer(AdamW(name="adamw", lr=1e-3))) is None
    adam = knowing(with_optimizer(AdamW(name="adamw", lr=1e-3)), stable_at("SSS"))
    (measurement,) = [r for r in Onset(grid=("0it", "1ep", "2ep")).measurements(adam) if r.variant == "onset"]
    assert "noise_scale" not in measurement.numbers([{"status": "ok", "metrics": {}, "epoch_losses": [1.0]}])
