"""Golden results in any other environment: sound results agree by the test, and planted faults are found and named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_golden import FAULTS, REPOSITORY, Verify, lthbench_, run_python, run_with_changed_default

from lthbench.analysis.golden.compare import compare_statistically
from lthbench.analysis.golden.files import read_golden
from lthbench.analysis.golden.record import tasks_of
from lthbench.suite.engine_choice import with_engine
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan

PAIR = "lenet-fashion-10k"
MICRO = REPOSITORY / "suites" / "micro.yaml"

__all__ = ["lthbench_"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_by_the_test_in_any_environment(
    fault: str, tmp_path: Path, lthbench_: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, wrong, task, what = FAULTS[fault]
    options = (MICRO, "--store", tmp_path / "store", "--pair", PAIR)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, wrong)
        assert lthbench_("run", *options, "--workers", "0", "--device", "cpu")[0] == 0
    code, (comparison,), _ = lthbench_("verify", *options, "--statistical", "--json")
    assert (code, comparison["state"]) == (1, "differs")
    first = comparison["differences"][0]
    assert first["task"] == f"{PAIR} {task}"
    assert first["what"] in what


def test_sound_results_of_jobs_agree_with_the_golden_ones_by_the_test(tmp_path: Path, lthbench_: Verify) -> None:
    options = (MICRO, "--store", tmp_path / "store", "--pair", PAIR)
    assert lthbench_("submit", *options, "--cluster", "debug", "--device", "cpu")[0] == 0
    code, (comparison,), text = lthbench_("verify", *options, "--statistical", "--json")
    assert (code, comparison["state"], comparison["differences"]) == (0, "agreed", []), text
    assert comparison["num_compared"] == comparison["num_tasks"] > 0 < comparison["num_tests"]


def test_a_changed_default_is_found_though_no_key_changes(tmp_path: Path) -> None:
    options = (str(MICRO), "--store", str(tmp_path / "store"), "--pair", PAIR)
    run_with_changed_default("run", *options, "--workers", "0", "--device", "cpu")
    verified = run_python("from lthbench.cli import main; main()", "verify", *options, "--statistical", "--json")
    assert verified.returncode == 1, verified.stderr
    first = json.loads(verified.stdout)[0]["differences"][0]
    assert first["task"].endswith(": dense of level 0") and first["what"] in ("last_epoch_loss", "distance")


RECORDED = {  # by the suite's name, with -blocked behind it where that engine trained
    folder.name: read_golden(folder) for folder in (REPOSITORY / "suites" / "golden").iterdir() if folder.is_dir()
}


def plan_of(suite: str) -> Plan:
    name, blocked = suite.removesuffix("-blocked"), suite.endswith("-blocked")
    return make_plan(with_engine(load_suite(REPOSITORY / "suites" / f"{name}.yaml"), "blocked" if blocked else None))


@pytest.mark.parametrize("suite", [name for name, goldens in RECORDED.items() if len(goldens) > 1])
def test_each_recorded_environment_agrees_with_the_others_by_the_test(suite: str) -> None:
    plan = plan_of(suite)
    for path, golden in RECORDED[suite].items():
        others = {other: recorded for other, recorded in RECORDED[suite].items() if other != path}
        results = {
            task.key: {"status": task.status, "metrics": task.metrics, "digests": task.digests}
            for task in golden.tasks
            if task.key in plan.tasks
        }
        comparison = compare_statistically(plan, results, others, whole=False)
        recorded_twice = {key for key in results if any(key in other.by_key() for other in others.values())}
        assert comparison.num_compared == len(recorded_twice), comparison.differences[:3]
        assert comparison.state == "agreed" or not recorded_twice, comparison.differences[:3]


@pytest.mark.parametrize("suite", RECORDED)
def test_golden_results_are_of_the_suite_as_it_is(suite: str) -> None:
    plan = plan_of(suite)
    assert {pair for golden in RECORDED[suite].values() for pair in golden.pairs()} == set(plan.suite.pairs)
    for path, golden in RECORDED[suite].items():
        assert {task.key for task in golden.tasks if not task.chosen} == tasks_of(plan, golden.pairs()).keys(), (
            f"{path}: holds other tasks than suites/{suite}.yaml has; record them by ci/golden.sh"
        )
