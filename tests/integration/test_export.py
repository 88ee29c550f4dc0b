"""What is exported to experiment trackers is what the store has, once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import Call
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lthbench.analysis.export.mlflow import KEY_TAG, export_mlflow
from lthbench.analysis.export.runs import tracked_runs
from lthbench.analysis.export.tensorboard import LEVELS, export_tensorboard
from lthbench.analysis.table import results_table
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store


def test_event_files_hold_every_curve_and_every_level(tiny_run: tuple[Plan, Store], tmp_path: Path) -> None:
    runs = list(tracked_runs(*tiny_run))
    assert export_tensorboard(*tiny_run, tmp_path) == len(runs) > 5
    for run in runs:
        read = EventAccumulator(str(tmp_path.joinpath(*run.folder, run.name)), size_guidance={"scalars": 0})
        read.Reload()
        result = tiny_run[1].result(run.key)
        assert result is not None
        losses = [(e.step, e.value) for e in read.Scalars("epoch_loss")]
        assert losses == [(i, pytest.approx(v)) for i, v in enumerate(result["epoch_losses"], 1)]
        assert read.Scalars("final/test_accuracy")[0].value == pytest.approx(result["metrics"]["test_accuracy"])
    levels = EventAccumulator(str(tmp_path / "tiny" / "late" / "replicate-0" / LEVELS), size_guidance={"scalars": 0})
    levels.Reload()
    expected = {
        row.level: row.value
        for row in results_table(*tiny_run)
        if (row.experiment, row.arm, row.variant, row.metric) == ("imp", "late", "ticket", "test_accuracy")
    }
    assert {e.step: e.value for e in levels.Scalars("imp/ticket/test_accuracy")} == pytest.approx(expected)


def test_exporting_again_writes_the_same_bytes_and_nothing_twice(tiny_run: tuple[Plan, Store], tmp_path: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    export_tensorboard(*tiny_run, tmp_path)
    before = contents()
    assert export_tensorboard(*tiny_run, tmp_path) == 0
    assert contents() == before


def test_mlflow_has_each_training_once_with_recipe_curves_and_metrics(
    tiny_run: tuple[Plan, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = tmp_path.as_uri()
    expected = {run.key: run for run in tracked_runs(*tiny_run)}
    client = MlflowClient(tracking_uri=uri)
    torn = client.create_run(client.create_experiment("tiny: tiny"), tags={KEY_TAG: next(iter(expected))})
    assert export_mlflow(*tiny_run, uri) == len(expected), "a run that was begun and not ended is no export"
    assert export_mlflow(*tiny_run, uri) == 0
    experiment = client.get_experiment_by_name("tiny: tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert {run.data.tags[KEY_TAG] for run in runs} == expected.keys() and len(runs) == len(expected)
    assert torn.info.run_id not in {run.info.run_id for run in runs}
    for run in runs:
        key = run.data.tags[KEY_TAG]
        assert run.data.params == expected[key].parameters
        assert run.data.metrics["test_accuracy"] == expected[key].metrics["test_accuracy"]
        history = client.get_metric_history(run.info.run_id, "epoch_loss")
        assert [(m.step, m.value) for m in history] == expected[key].curves["epoch_loss"]


def test_a_run_writes_event_files_when_asked_and_says_before_any_training_what_is_not_installed(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    def run(store: str) -> tuple[int, str, str]:
        options = ("--store", tmp_path / store, "--workers", "0", "--only", "imp", "--no-report")
        return call("run", tiny_suite, *options, "--tensorboard", events)

    events = tmp_path / "events"
    assert run("store")[0] == 0
    assert list((events / "tiny" / "late" / "replicate-0").iterdir())
    monkeypatch.delitem(sys.modules, "lthbench.analysis.export.tensorboard")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorboard"]:
        monkeypatch.setitem(sys.modules, name, None)
    code, _, err = run("other")
    assert code == 2 and "pip install 'lthbench[tensorboard]'" in err.replace("\n", " ")
    assert not (tmp_path / "other").exists()
