"""The claim table, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import TINY
from test_cli import call

from lthbench.runner.store import Store
from lthbench.suite.plan import Plan

CLAIMS = Path(__file__).parents[2] / "suites" / "claims"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY + f"    claim_levels: {{range: [2]}}\nclaims: [{CLAIMS}]\n")
    return path


def test_a_run_ends_in_the_claim_table(
    suite: Path, tiny_run: tuple[Plan, Store], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call(capsys, monkeypatch, "run", suite, "--store", tiny_run[1].root, "--workers", "0")
    assert code == 0, err
    table = out[out.index("Claims") :]
    assert all(f"C{n} " in table for n in range(1, 24) if n != 22) and "C22" not in table
    assert "suites/paper.yaml" not in out, "what is missing is told of the user's own suite"
    assert f"add regulariser to the experiments of tiny in {suite}, then: lthbench run {suite} --pair tiny" in table


def test_verdicts_tell_all_there_is_as_json(
    suite: Path, tiny_run: tuple[Plan, Store], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = call(capsys, monkeypatch, "verdicts", suite, "--store", tiny_run[1].root, "--json")
    assert code == 0, err
    assert "Infinity" not in out and "NaN" not in out
    found = {verdict["claim"]: verdict for verdict in json.loads(out)}
    assert found["C1"]["outcome"] == "inconclusive" and "one replicate has no spread" in found["C1"]["reason"]
    part = found["C1"]["parts"][0]
    assert part["effect"]["unit"] == "pp" and part["n"] == 1
    assert set(part["keys"]) <= set(tiny_run[0].tasks)
    assert found["C16"]["outcome"] == "not run" and found["C16"]["reason"] == "the suite has no few-shot"


def test_a_suite_without_claims_says_how_to_name_them(
    tiny_suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = call(capsys, monkeypatch, "verdicts", tiny_suite, "--store", tmp_path)
    assert (code, "claims: [claims]" in out) == (0, True)
