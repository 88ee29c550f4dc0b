"""`lthbench plan`: what a suite's claims can decide, in its table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Call

CLAIM = """\
C1:
  sentence: Tickets win.
  origin: inferred
  experiments: [imp]
  tests:
    - {what: better, test: contrast, levels: mine, plus: {late: ticket}, minus: {late: dense}, margin: 0.5}
"""


def test_plan_tells_what_claims_can_decide_before_anything_runs(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    (tmp_path / "mine.yaml").write_text(CLAIM)
    text = tiny_suite.read_text().replace("replicates: 1\n", "replicates: 5\nclaims: [mine.yaml]\n")
    text = text.replace("late: {recipe", "late: {class: late, recipe")
    tiny_suite.write_text(text.replace("    arms:\n", "    claim_levels: {mine: [1]}\n    arms:\n"))

    def shown(*options: str) -> str:
        return call("plan", tiny_suite, "--store", tmp_path / "store", *options)[1]

    whole, alone = json.loads(shown("--json"))["claims"], json.loads(shown("--power", "--json"))
    assert whole == alone
    (claim,) = alone
    assert (claim["claim"], claim["n"], claim["decides"]) == ("C1", 5, "yes")
    assert claim["parts"][0]["smallest"] == pytest.approx(0.408, abs=0.001)
    assert "0.41 pp of 0.5 [1]" in shown("--power") and "[1] spread assumed" in shown()
    assert not json.loads(shown("--replicates", "1", "--json"))["claims"], "verdicts are on whole suites"
