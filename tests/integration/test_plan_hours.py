"""`lthbench plan`: hours from a calibration, and budgets whose proposals can be typed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from conftest import Call

from lthbench.bench import quick_rates, throughput
from lthbench.suite.calibration import read_calibration

NAMED = {"H100 SXM", "A100 SXM", "RTX 4090"}


def test_a_calibration_gives_hours_that_are_told_apart_from_calculated_ones(
    tiny_suite: Path, own_cache: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "SECONDS", 0.02)
    options = ("plan", tiny_suite, "--store", tmp_path / "store")
    rows = json.loads(call(*options, "--json")[1])["cost"]
    assert set(rows[-1]["hours"]) == NAMED and not (own_cache / "calibrations").exists(), "planning measures nothing"

    code, out, err = call(*options, "--calibrate", "--device", "cpu", "--json")
    assert code == 0, err
    (path,) = (own_cache / "calibrations").glob("*.json")
    assert str(path) in err.replace("\n", "")
    rows = {row["name"]: row for row in json.loads(out)["cost"]}
    (here,) = set(rows["all"]["hours"]) - NAMED
    assert 0 < rows["all"]["hours"][here] < 1
    assert rows["all"]["hours"][here] == pytest.approx(sum(rows[k]["hours"][here] for k in ("train", "interpolate")))

    code, out, _ = call(*options)
    assert (code, ": measured with torch" in out, out.count("calculated, not measured")) == (0, True, 3)
    path.write_text("{}")
    code, _, err = call(*options)
    assert (code, f"{path}: is not a calibration" in err) == (2, True)


@pytest.fixture
def times_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTHBENCH_MEASURE", "1")
    monkeypatch.setattr(quick_rates, "SECONDS", 0.002)


@pytest.mark.usefixtures("times_quickly")
def test_a_plan_says_in_words_how_long_this_machine_takes_and_times_it_once(
    tiny_suite: Path, own_cache: Path, tmp_path: Path, call: Call
) -> None:
    options = ("plan", tiny_suite, "--device", "cpu", "--store", tmp_path / "store")
    code, out, err = call(*options)
    assert (code, "Timing this machine" in err) == (0, True)
    workers = len(os.sched_getaffinity(0))
    expected = rf"takes about \d+ seconds on {workers} workers? of this machine's processor \(timed here\)\."
    assert re.search(expected, out), out
    (path,) = (own_cache / "calibrations").glob("*.json")
    kept = path.read_bytes()

    code, out, err = call(*options, "--json")
    assert (code, err, path.read_bytes()) == (0, "", kept), "what is known is not timed again"
    found = json.loads(out)
    here = found["here"]
    assert here["is_measured"] and here["workers"] == workers and here["in_words"].startswith("about ")
    hours = found["cost"][-1]["hours"][here["device"]]
    assert 0 < 3600 * hours / workers <= 1.001 * here["seconds"] <= 1.01 * 3600 * hours, "shared by the workers"
    assert found["devices"][here["device"]]["is_measured"] and not found["devices"]["H100 SXM"]["is_measured"]

    assert "Timing" in call(*options, "--threads", "2")[2], "other threads, other rates"
    other = tiny_suite.with_name("other.yaml")
    other.write_text(tiny_suite.read_text().replace("batch_size: 64", "batch_size: 32"))
    unmeasured = call("plan", other, *options[2:], "--no-measure", "--json")
    assert json.loads(unmeasured[1])["here"]["is_measured"], "the nearest batch size"
    assert path.read_bytes() == kept
    assert "Timing" in call("plan", other, *options[2:])[2]
    assert [rate.batch_size for rate in read_calibration(path).trainings] == [64, 32]


@pytest.mark.usefixtures("times_quickly")
def test_what_there_is_no_time_for_is_estimated_from_what_was_timed(
    tiny_suite: Path, own_cache: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_rates.quick_rates, "__kwdefaults__", {"limit": 0.0})
    text = tiny_suite.read_text()
    pair = text[text.index("  tiny:") :]
    tiny_suite.write_text(text + pair.replace("tiny:", "wide:").replace("width: 10", "width: 20"))
    options = ("plan", tiny_suite, "--device", "cpu", "--store", tmp_path / "store")
    code, out, err = call(*options)
    assert code == 0, err
    told = "(timed here; of 2 pairs partly estimated from that, for want of time: --calibrate times all)"
    assert told in " ".join(out.split())
    assert not json.loads(call(*options, "--json")[1])["here"]["is_measured"]
    (path,) = (own_cache / "calibrations").glob("*.json")
    found = read_calibration(path)
    trainings = {rate.model.width: rate for rate in found.trainings}
    assert {width: rate.estimated for width, rate in trainings.items()} == {20: False, 10: True}, "the costliest first"
    assert trainings[10].images_per_second > trainings[20].images_per_second, "in proportion to the operations"
    assert all(rate.estimated for rate in found.networks)


@pytest.mark.usefixtures("times_quickly")
def test_of_days_on_a_processor_it_is_said_that_gpus_are_meant(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    tiny_suite.write_text(tiny_suite.read_text().replace("steps: 3ep", "steps: 100000000ep"))
    code, out, err = call("plan", tiny_suite, "--device", "cpu", "--store", tmp_path / "store", "--arm", "early")
    assert code == 0, err
    text = " ".join(out.split())
    assert re.search(
        r"takes about [\d.,]+ (days|years) on \d+ workers? of this machine's processor \(timed here\)\.", text
    )
    assert "It is meant for GPUs: one H100 SXM takes about " in text and "(calculated, not measured)" in text


@pytest.mark.usefixtures("times_quickly")
def test_a_plan_goes_on_where_nothing_can_be_kept(
    tiny_suite: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path / "file"))
    code, out, err = call("plan", tiny_suite, "--device", "cpu", "--store", tmp_path / "store")
    assert (code, "(timed here)" in out, "cannot be kept" in err) == (0, True, True)


def test_the_command_of_a_proposal_plans_what_was_proposed(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    tiny_suite.write_text(tiny_suite.read_text().replace("replicates: 1", "replicates: 4"))
    store = ("--store", tmp_path / "store")

    def hours(*options: str) -> float:
        rows = json.loads(call("plan", tiny_suite, *store, *options, "--json")[1])["cost"]
        return float(rows[-1]["hours"]["A100 SXM"])

    for share in (0.8, 0.4):
        budget = f"{share * hours():.8f}gpuh"
        options = ("--budget", budget, "--on", "a100")
        code, out, err = call("plan", tiny_suite, *store, *options, "--json")
        assert code == 0, err
        found = json.loads(out)
        program, verb, suite, *typed = found["command"]
        assert (program, verb, suite) == ("lthbench", "run", str(tiny_suite)) and typed
        assert hours(*typed) == found["cost"][-1]["hours"]["A100 SXM"] <= found["budget_hours"]
        shown = call("plan", tiny_suite, *store, *options)[1]
        assert " ".join(["lthbench run", str(tiny_suite), *typed]) in shown and "Policy." in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--budget", "200"), "--budget 200: is not a budget; give hours"),
        (("--budget", "2gpuh"), "no GPU was measured for this version of torch"),
        (("--budget", "2cpuh"), "no processor was measured"),
        (
            ("--budget", "2gpuh", "--on", "tpu"),
            "--on tpu: no device with hours in gpuh is called so; known: ",
        ),
        (("--budget", "2gpuh", "--on", "h100", "--pair", "tiny"), "leave out --pair tiny"),
        (("--budget", "0.0000001gpuh", "--on", "h100"), "buy no part of"),
    ],
)
def test_a_budget_that_cannot_be_served_is_told_why(
    options: tuple[str, ...], message: str, tiny_suite: Path, tmp_path: Path, call: Call
) -> None:
    code, _, err = call("plan", tiny_suite, "--store", tmp_path / "store", *options)
    assert (code, message in err) == (2, True), err
