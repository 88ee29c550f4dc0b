"""`lthbench plan`: hours from a calibration, and budgets whose proposals can be typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import call

from lthbench.bench import throughput

NAMED = {"H100 SXM", "A100 SXM", "RTX 4090"}


def test_a_calibration_gives_hours_that_are_told_apart_from_calculated_ones(
    tiny_suite: Path,
    own_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throughput, "SECONDS", 0.02)
    options = ("plan", tiny_suite, "--store", tmp_path / "store")
    rows = json.loads(call(capsys, monkeypatch, *options, "--json")[1])["cost"]
    assert set(rows[-1]["hours"]) == NAMED and not (own_cache / "calibrations").exists(), "planning measures nothing"

    code, out, err = call(capsys, monkeypatch, *options, "--calibrate", "--device", "cpu", "--json")
    assert code == 0, err
    (path,) = (own_cache / "calibrations").glob("*.json")
    assert str(path) in err.replace("\n", "")
    rows = {row["name"]: row for row in json.loads(out)["cost"]}
    (here,) = set(rows["all"]["hours"]) - NAMED
    assert 0 < rows["all"]["hours"][here] < 1
    assert rows["all"]["hours"][here] == pytest.approx(sum(rows[k]["hours"][here] for k in ("train", "interpolate")))

    code, out, _ = call(capsys, monkeypatch, *options)
    assert (code, "measured by `plan --calibrate`" in out, out.count("calculated, not measured")) == (0, True, 3)
    path.write_text("{}")
    code, _, err = call(capsys, monkeypatch, *options)
    assert (code, f"{path}: is not a calibration" in err) == (2, True)


def test_the_command_of_a_proposal_plans_what_was_proposed(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_suite.write_text(tiny_suite.read_text().replace("replicates: 1", "replicates: 4"))
    store = ("--store", tmp_path / "store")

    def hours(*options: str) -> float:
        rows = json.loads(call(capsys, monkeypatch, "plan", tiny_suite, *store, *options, "--json")[1])["cost"]
        return float(rows[-1]["hours"]["A100 SXM"])

    for share in (0.8, 0.4):
        budget = f"{share * hours():.8f}gpuh"
        options = ("--budget", budget, "--on", "a100")
        code, out, err = call(capsys, monkeypatch, "plan", tiny_suite, *store, *options, "--json")
        assert code == 0, err
        found = json.loads(out)
        program, verb, suite, *typed = found["command"]
        assert (program, verb, suite) == ("lthbench", "run", str(tiny_suite)) and typed
        assert hours(*typed) == found["cost"][-1]["hours"]["A100 SXM"] <= found["budget_hours"]
        shown = call(capsys, monkeypatch, "plan", tiny_suite, *store, *options)[1]
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
    options: tuple[str, ...],
    message: str,
    tiny_suite: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, _, err = call(capsys, monkeypatch, "plan", tiny_suite, "--store", tmp_path / "store", *options)
    assert (code, message in err) == (2, True), err
