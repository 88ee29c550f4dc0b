"""The claim table, as a user meets it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import TINY, Call

from lthbench.analysis.claims.looks import FOLDER, read_looks
from lthbench.analysis.points import replicate_cost
from lthbench.suite.plan import Plan
from lthbench.tasks.spec import Task
from lthbench.tasks.store import Store

CLAIMS = Path(__file__).parents[2] / "suites" / "claims"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    stated = TINY.replace("early: {}", "early: {class: early}").replace("late: {", "late: {class: late, ")
    path.write_text(stated + f"    claim_levels: {{range: [2]}}\nclaims: [{CLAIMS}]\n")
    return path


@pytest.fixture(autouse=True)
def _that_counts_whatever_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its three epochs the late network of `tiny` learns nothing; here it is to count all the same."""
    monkeypatch.setattr("lthbench.analysis.points.ended_at_chance", lambda task, result_of: False)


def test_a_run_ends_in_the_claim_table(suite: Path, tiny_run: tuple[Plan, Store], call: Call) -> None:
    code, out, err = call("run", suite, "--store", tiny_run[1].root, "--workers", "0")
    assert code == 0, err
    table = out[out.index("Claims") :]
    assert all(re.search(rf"C{n}\b", table) for n in range(1, 24) if n != 22) and "C22" not in table
    assert f"lthbench verdicts {suite} --store {tiny_run[1].root}" in table
    assert table.index("Claims") < table.index("tiny\n") < table.index("tasks: 0 run now"), "verdicts come first"


def test_verdicts_tell_of_the_users_own_suite_what_is_missing(
    suite: Path, tiny_run: tuple[Plan, Store], call: Call
) -> None:
    code, out, err = call("verdicts", suite, "--store", tiny_run[1].root)
    assert code == 0, err
    table = out[out.index("Claims") :]
    assert "suites/paper.yaml" not in out
    assert f"add regulariser to the experiments of tiny in {suite}, then: lthbench run {suite} --pair tiny" in table
    assert f"--store {tiny_run[1].root}" in table


def test_verdicts_tell_all_there_is_as_json(suite: Path, tiny_run: tuple[Plan, Store], call: Call) -> None:
    code, out, err = call("verdicts", suite, "--store", tiny_run[1].root, "--json")
    assert code == 0, err
    assert "Infinity" not in out and "NaN" not in out
    found = {verdict["claim"]: verdict for verdict in json.loads(out)}
    assert found["C1"]["outcome"] == "inconclusive" and "one replicate has no spread" in found["C1"]["reason"]
    part = found["C1"]["parts"][0]
    assert part["effect"]["unit"] == "pp" and part["n"] == 1
    assert set(part["keys"]) <= set(tiny_run[0].tasks)
    assert found["C16"]["outcome"] == "not run" and found["C16"]["reason"] == "the suite has no few-shot"


def test_verdicts_that_are_shown_are_kept_in_a_store_that_is_there(
    suite: Path, tiny_run: tuple[Plan, Store], tmp_path: Path, call: Call
) -> None:
    assert call("verdicts", suite, "--store", tmp_path / "none")[0] == 2
    assert not (tmp_path / "none").exists(), "reading makes no store, which `run` would then refuse"
    store = Store(tmp_path / "store")
    shutil.copytree(tiny_run[1].root, store.root)
    shutil.rmtree(store.root / FOLDER, ignore_errors=True)
    for _ in range(2):
        assert call("verdicts", suite, "--store", store.root, "--json")[0] == 0
    assert len(list((store.root / FOLDER).iterdir())) == 1
    looks = read_looks(store)
    assert {look.pair for look in looks} == {"tiny"} and {look.planned for look in looks} == {1}
    assert {look.key for look in looks} <= set(tiny_run[0].tasks)
    store.check()


def test_further_replicates_cost_the_trainings_and_hours_that_one_took(tiny_run: tuple[Plan, Store]) -> None:
    plan, store = tiny_run
    trainings, hours = replicate_cost(plan, store, "tiny", ["imp"])
    needed: dict[str, Task] = {}
    pending = [p.measurement.task for p in plan.measurements if p.experiment == "imp"]
    while pending:
        task = pending.pop()
        needed[task.key] = task
        pending += task.inputs
    seconds = [(store.result(key) or {})["seconds"] for key in needed]
    assert trainings == sum(task.spec.kind == "train" for task in needed.values())
    assert hours == pytest.approx(sum(seconds) / 3600)
    assert replicate_cost(plan, Store(store.root / "none"), "tiny", ["imp"]) == (trainings, None)


def test_a_suite_without_claims_says_how_to_name_them(tiny_suite: Path, tmp_path: Path, call: Call) -> None:
    Store(tmp_path / "store").check()
    code, out, _ = call("verdicts", tiny_suite, "--store", tmp_path / "store")
    assert (code, "claims: [claims]" in out) == (0, True)
