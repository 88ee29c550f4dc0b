"""The command line as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Call

from lthbench.cli.app import out, print_json
from lthbench.cli.verdicts import tell_what_computed
from lthbench.ops import _library
from lthbench.ops._library import why_no_kernels
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan


def test_a_suite_from_plan_to_results(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    store = tmp_path / "store"

    def run(*arguments: str) -> str:
        code, out, err = call(arguments[0], tiny_suite, "--store", store, *arguments[1:])
        assert code == 0, err
        return out

    planned = {line["name"]: line for line in json.loads(run("plan", "--json"))["cost"]}
    assert planned["all"]["done"] == 0 and not store.exists(), "planning writes nothing"
    assert planned["all"]["tasks"] == sum(planned[kind]["tasks"] for kind in ("train", "mask", "interpolate"))
    assert 0 < planned["all"]["shared"] < planned["all"]["tasks"]

    rows = json.loads(run("run", "--workers", "0", "--json"))
    assert {row["metric"] for row in rows} >= {"test_accuracy", "distance_relative", "test_barrier"}
    assert json.loads(run("results", "--json")) == rows
    table = list(csv.DictReader(io.StringIO(run("results", "--csv"))))
    assert [float(line["value"]) for line in table] == [row["value"] for row in rows]

    planned = {line["name"]: line for line in json.loads(run("plan", "--json"))["cost"]}
    assert planned["all"]["done"] == planned["all"]["tasks"]
    ran = list(store.glob("tasks/*/*/result.json"))
    assert len(ran) == planned["all"]["tasks"], "what runs is what was planned"
    status = json.loads(run("status", "--json"))
    assert sum(arm["done"] for arm in status["arms"]) == len(ran)
    for command in ("plan", "run", "status", "results"):
        assert "tiny" in run(command)


def test_only_one_experiment_runs_where_only_it_is_asked_for(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    options = ("--store", tmp_path / "store", "--workers", "0", "--only", "stability", "--json")
    code, out, _ = call("run", tiny_suite, *options)
    assert code == 0
    assert {row["experiment"] for row in json.loads(out)} == {"stability"}
    code, _, err = call("run", tiny_suite, "--only", "stabilty")
    assert (code, "known: controls, imp, rewound, stability" in err) == (2, True)


def test_a_failed_task_stops_what_needs_it_and_nothing_else(
    tiny_suite: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lthbench.tasks.run as tasks

    def broken(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "make_mask", broken)
        code, out, err = call("run", tiny_suite, "--store", tmp_path / "s", "--workers", "0")
    assert code == 1
    assert "no space left on device" in err and "dense" in out and "ticket" not in out
    code, out, _ = call("status", tiny_suite, "--store", tmp_path / "s")
    assert "no space left on device" in out
    again = ("run", tiny_suite, "--store", tmp_path / "s", "--workers", "0")
    code, out, err = call(*again)
    assert code == 1 and "ticket" not in out and "--retry-failed" in err, "a failed task is not tried again unasked"
    code, out, _ = call(*again, "--retry-failed")
    assert code == 0 and "ticket" in out


def test_a_folder_that_is_no_store_is_left_alone(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    code, _, err = call("run", tiny_suite, "--store", tmp_path / "home")
    assert (code, "is not empty and no store" in err) == (2, True)
    assert [p.name for p in (tmp_path / "home").iterdir()] == ["thesis.txt"]


def test_a_file_given_as_store_is_named_with_its_cure(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    for command in ("run", "results", "status"):
        code, _, err = call(command, tiny_suite, "--store", tiny_suite)
        assert (code, f"{tiny_suite}: cannot be used as store" in err.replace("\n", "")) == (2, True), command


def test_missing_data_is_named_before_anything_is_trained(
    tiny_suite: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_suite.write_text(tiny_suite.read_text().replace("fashion-mnist-10k", "fashion-mnist"))
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    code, _, err = call("run", tiny_suite, "--store", tmp_path / "s", "--data", tmp_path / "none")
    assert code == 2
    assert "fashion-mnist" in err and "lthbench data download" in err
    assert not list((tmp_path / "s").glob("tasks/*"))


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta"])
def test_a_device_that_is_not_there_is_an_error(device: str, tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    code, _, err = call("run", tiny_suite, "--store", tmp_path / "s", "--device", device)
    assert (code, f"--device {device}" in err) == (2, True)


def test_a_damaged_result_is_named_with_its_cure(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    options = (tiny_suite, "--store", tmp_path / "s", "--workers", "0", "--only", "imp")
    assert call("run", *options)[0] == 0
    path = next((tmp_path / "s").glob("tasks/*/*/weights.safetensors")).with_name("result.json")
    path.write_text("{")
    code, _, err = call("results", tiny_suite, "--store", tmp_path / "s")
    assert (code, f"{path}: " in err and "lthbench run` sets it aside" in err) == (2, True), err


def test_doctor_and_data_list_tell_of_the_embedded_images(tmp_path: Path, call: Call) -> None:
    code, out, _ = call("doctor", "--store", tmp_path, "--json")
    told = json.loads(out)
    assert code == 0 and any("fashion-mnist-10k" in finding["text"] for finding in told)
    assert {"ok"} == {finding["level"] for finding in told if finding["what"] == "narrow networks"}
    code, out, _ = call("data", "check", "fashion-mnist-10k", "--json")
    assert code == 0 and json.loads(out)[0]["present"]


def test_what_is_not_finite_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"ratio": math.nan, "ends": (math.inf, 1.5)})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"ratio": None, "ends": [None, 1.5]}


def test_a_reason_that_fails_many_tasks_is_told_once(
    tiny_suite: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise ValueError("these images are damaged")

    monkeypatch.setattr("lthbench.runner.worker.Worker.run", refuse)
    for _ in range(2):  # when it fails, and when it is known to have failed
        code, _, err = call("run", tiny_suite, "--store", tmp_path / "store", "--workers", "0")
        assert code == 1
        assert err.count("these images are damaged") == 1 and "4 tasks failed" in err, err


@pytest.mark.parametrize(
    ("arms", "told"), [("late", "1 of 2 trainings diverged"), ("both", "every training diverged (2)")]
)
def test_the_summary_says_how_many_trainings_diverged(
    arms: str, told: str, tiny_suite: Path, tmp_path: Path, call: Call
) -> None:  # fmt: skip
    text = tiny_suite.read_text().replace("lr: 0.2", "lr: 1.0e+20")
    tiny_suite.write_text(text if arms == "late" else text.replace("lr: 0.05", "lr: 1.0e+21"))
    words = ("--store", tmp_path / "store", "--workers", "0", "--only", "imp", "--levels", "0")
    code, out, err = call("run", tiny_suite, *words)
    assert (code, told in out + err) == (int(arms == "both"), True)


def test_a_number_of_threads_that_no_machine_has_is_refused(tiny_suite: Path, call: Call) -> None:
    code, _, err = call("run", tiny_suite, "--threads", "1000000")
    assert code == 2 and "--threads" in err and "1024" in err


@pytest.mark.parametrize(("option", "expected"), [("--graphs", True), ("--no-graphs", False)])
def test_every_training_is_told_whether_it_may_record_its_passes(
    option: str,
    expected: bool,
    tiny_suite: Path,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = set()

    def trainer(*arguments: Any, graphs: bool, **options: Any) -> None:
        told.add(graphs)
        raise RuntimeError("no training is wanted")

    monkeypatch.setattr("lthbench.tasks.train.Trainer", trainer)
    code, _, _ = call("run", tiny_suite, "--store", tmp_path / "store", "--executor", "debug", option)
    assert (code, told) == (1, {expected})


def test_what_the_reference_computed_without_kernels_is_told_beside_the_verdicts(
    tiny_suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(load_suite(tiny_suite))
    keys = list(plan.tasks)
    for plain, told in ((0, ""), (2, f"reference, without kernels: 2 of {len(keys)} tasks\n")):
        found = {key: {"environment": {"kernels": key not in keys[:plain]}} for key in keys}
        tell_what_computed(plan, SimpleNamespace(result=found.get), out)  # type: ignore[arg-type]
        printed = capsys.readouterr().out
        assert printed.endswith(told) if plain else printed == ""


def test_why_the_reference_computes_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_library, "_cpu", object())
    monkeypatch.setattr(_library, "_cuda", None)
    monkeypatch.setattr(_library, "_cuda_reason", "not built at install")
    monkeypatch.delenv("LTHBENCH_REFERENCE", raising=False)
    assert (why_no_kernels("cpu"), why_no_kernels("cuda:1")) == (None, "not built at install")
    monkeypatch.setenv("LTHBENCH_REFERENCE", "1")
    assert why_no_kernels("cpu") == "LTHBENCH_REFERENCE=1"
