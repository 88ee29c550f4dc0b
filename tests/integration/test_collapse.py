"""Layers that pruning has emptied: what is undefined of them is absent, and they are counted and told."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Call, run_here

from lthbench.analysis.points import ended_at_chance, points
from lthbench.analysis.report import contents
from lthbench.analysis.table import results_table
from lthbench.cli.results import print_summary
from lthbench.cli.status import status
from lthbench.data.spec import DataSpec
from lthbench.models.spec import ModelSpec
from lthbench.runner.status import suite_status
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.context import Context
from lthbench.tasks.interpolate import interpolate
from lthbench.tasks.layout import Layout
from lthbench.tasks.network import make_network, set_initial_weights, weights_of
from lthbench.tasks.spec import InterpolateSpec, Task, TrainSpec, Weights
from lthbench.tasks.store import Store
from lthbench.training.recipe import SGD, Recipe
from lthbench.training.steps import Steps

SUITE = """\
title: collapse
replicates: 1
pairs:
  tiny:
    model: {name: lenet-300-100, width: 10}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 100, num_test: 100}
    pruning: {rate: 0.97}
    recipe: {steps: 2ep, batch_size: 64, optimizer: {name: sgd, lr: 0.05}}
    arms: {a: {}}
    experiments:
      imp: {levels: 3}
      distance: {levels: [0, 2, 3], points: 2}
      aimp: {budgets: [0.5], levels: [3]}
      level-barriers: {levels: [3], points: 3}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """A store of networks that lose all weights of their layers, one after another."""
    folder = tmp_path_factory.mktemp("collapse")
    (folder / "suite.yaml").write_text(SUITE)
    return run_here(make_plan(load_suite(folder / "suite.yaml")), folder / "store")


def results(run: tuple[Plan, Store]) -> list[dict[str, Any]]:
    return [run[1].result(key) for key in run[0].tasks]  # type: ignore[misc]


def test_an_empty_layer_has_no_distance_and_no_overlap_and_is_counted(run: tuple[Plan, Store]) -> None:
    counts = set()
    for result in results(run):
        if "layer_density" not in result:
            continue
        empty = {layer for layer, density in result["layer_density"].items() if density == 0}
        metrics = result["metrics"]
        assert metrics["empty_layers"] == len(empty)
        counts.add(len(empty))
        if "layer_overlap" in result:
            assert not empty & (result["layer_overlap"].keys() | result["layer_distance"].keys())
            overlaps = result["layer_overlap"].values()
            assert metrics.get("overlap") == (pytest.approx(sum(overlaps) / len(overlaps)) if overlaps else None)
    assert {0, 2} <= counts, "some networks are whole, and some have lost two of three layers"


def test_lines_between_networks_of_which_nothing_is_left_have_no_distance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, data = ModelSpec(name="lenet-300-100", width=1), DataSpec(name="fashion-mnist-10k", num_train=1, num_test=1)
    model = make_network(spec, data, torch.device("cpu"))
    set_initial_weights(model, spec, seed=0)
    whole, layout = weights_of(model), Layout.of(model, spec)
    ends = {"0" * 32: {n: torch.zeros_like(t) for n, t in whole.items()}, "1" * 32: whole}
    monkeypatch.setattr(Context, "network", lambda self, ref: (ends[ref.task], layout))
    kept = lambda made, layout, weights, context: {n: weights[n] != 0 for n in layout.prunable}  # noqa: E731
    monkeypatch.setattr("lthbench.tasks.interpolate._mask", kept)
    monkeypatch.setattr(
        "lthbench.tasks.interpolate._training", lambda *_: SimpleNamespace(recipe=SimpleNamespace(engine="torch"))
    )
    found = {}
    for a, b in itertools.combinations_with_replacement(ends, 2):
        line = InterpolateSpec(model=spec, data=data, a=Weights(task=a), b=Weights(task=b), points=3)
        metrics = interpolate(line, Context(folder=tmp_path, folder_of=Path))["metrics"]
        found[a[0] + b[0]] = {name for name in metrics if "distance" in name}
    assert found == {"00": set(), "01": {"distance"}, "11": {"distance", "distance_shared"}}


def test_tables_take_what_is_absent_and_no_number_is_made_up(run: tuple[Plan, Store]) -> None:
    rows = results_table(*run)
    assert all(math.isfinite(row.value) for row in rows)
    for key in {row.key for row in rows if row.variant == "ticket, by layer"}:
        densities = run[1].result(key)["layer_density"]  # type: ignore[index]
        told = {row.metric.split("/")[1] for row in rows if row.key == key and "/" in row.metric}
        assert told == {layer for layer, density in densities.items() if density > 0} != densities.keys()


def test_the_end_of_a_run_says_how_many_networks_have_empty_layers(
    run: tuple[Plan, Store], tmp_path: Path, call: Call
) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    found = suite_status(*run, tmp_path / "suite.yaml").arms
    trainings = sum(isinstance(task.spec, TrainSpec) for task in run[0].tasks.values())
    code, out, _ = call("run", tmp_path / "suite.yaml", "--store", run[1].root, "--workers", "0")
    told = f"{sum(arm.collapsed for arm in found)} of {trainings} trainings are of a network with empty layers"
    assert code == 0 and told in " ".join(out.split())


def test_collapse_is_told_by_status_the_summary_and_the_report(
    run: tuple[Plan, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    found = suite_status(*run, tmp_path / "suite.yaml")
    assert all(0 < arm.collapsed < arm.done for arm in found.arms)
    status(suite=tmp_path / "suite.yaml", store=run[1].root)
    print_summary(run[0].suite, results_table(*run))
    shown = capsys.readouterr().out
    assert shown.count("empty") >= 3 and "no survivor" in shown and "no mean" in shown
    empty = [row for row in contents._troubles(*run, "tiny").rows if row[1] == "empty layers"]
    assert len(empty) == sum(arm.collapsed for arm in found.arms) and "fc1.weight" in empty[0][2]


def test_a_dense_network_that_learns_nothing_is_told_with_all_that_is_made_from_it(tmp_path: Path, call: Call) -> None:
    text = SUITE.replace("arms: {a: {}}", "arms: {a: {}, still: {recipe: {optimizer: {lr: 1.0e-9}}}}")
    text = text.replace("rate: 0.97", "rate: 0.5").replace("levels: [0, 2, 3]", "levels: [0, 2]")
    text = text.replace("num_train: 100", "num_train: 1000").replace("2ep", "6ep")
    (tmp_path / "suite.yaml").write_text(text)
    code, out, err = call("run", tmp_path / "suite.yaml", "--store", tmp_path / "store", "--device", "cpu")
    assert code == 0, err
    told = " ".join((out + err).split())
    assert "2 dense networks of tiny still ended at chance" in told, told
    plan = make_plan(load_suite(tmp_path / "suite.yaml"))
    found = list(points(plan, Store(tmp_path / "store")))
    assert {p.status for p in found if p.arm == "still" and p.experiment != "aimp"} == {"at chance"}
    assert {point.status for point in found if point.arm == "a"} == {"ok"}
    assert any(point.numbers for point in found if point.arm == "still"), "what was measured is still shown"
    report = contents.gather(plan, Store(tmp_path / "store"), tmp_path / "suite.yaml")
    troubles = [row for row in report.sections[0].troubles.rows if row[1] == "at chance"]
    assert len(troubles) == 2 and all("still" in row[0] for row in troubles)


def test_only_a_training_as_long_as_the_measured_one_can_be_at_chance_for_it(tmp_path: Path) -> None:
    """How short the trainings of a mask search may be is what a small budget measures."""
    text = (
        SUITE.replace("2ep", "20ep")
        .replace("budgets: [0.5]", "budgets: [1, 0.05]")
        .replace("num_train: 100", "num_train: 300")
    )
    (tmp_path / "suite.yaml").write_text(text)
    plan = make_plan(load_suite(tmp_path / "suite.yaml"))

    class Short:
        """A store in which the short trainings have learned nothing, and all others have."""

        def result(self, key: str) -> dict[str, Any]:
            spec = plan.tasks[key].spec
            short = isinstance(spec, TrainSpec) and spec.recipe.steps.count(5) < 20
            numbers = dict.fromkeys(("test_accuracy", "density", "distance", "distance_relative"), 0.5)
            return {"status": "ok", "metrics": {**numbers, "train_accuracy": 0.12 if short else 0.95}, "seconds": 1}

    found = [point for point in points(plan, Short()) if point.experiment == "aimp"]  # type: ignore[arg-type]
    assert found and {point.status for point in found} == {"ok"}


def test_of_two_classes_and_few_images_a_perfect_network_is_not_at_chance() -> None:
    spec = TrainSpec(
        model=ModelSpec(name="lenet-300-100", width=10),
        data=DataSpec(name="fashion-mnist-10k", classes=(0, 1), num_train=8, validation=2),
        recipe=Recipe(steps=Steps(epochs=1), batch_size=4, optimizer=SGD(name="sgd", lr=0.1)),
        seed=0,
    )

    def at_chance(accuracy: float) -> bool:
        result = {"metrics": {"train_accuracy": accuracy}}
        return ended_at_chance(Task(spec), lambda _: result)  # type: ignore[arg-type]

    assert at_chance(0.5) and not at_chance(1.0)
