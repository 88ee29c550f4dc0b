"""A suite by another engine than its recipes name: other keys, other golden results, another report; the same words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Call

from lthbench import api
from lthbench.analysis.golden.files import decisive_differences, golden_folder
from lthbench.runner.environment import environment
from lthbench.suite.engine_choice import by_every_engine, with_engine
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.spec import MaskSpec, TrainSpec


def test_an_engine_is_part_of_the_keys_of_all_trainings_and_of_nothing_else_by_itself(tiny_suite: Path) -> None:
    suite = load_suite(tiny_suite)
    plain, torchs, blocked = (make_plan(with_engine(suite, engine)) for engine in (None, "torch", "blocked"))
    assert plain.tasks.keys() == torchs.tasks.keys(), "what is the default is in no key"
    assert not plain.tasks.keys() & blocked.tasks.keys(), "masks and lines hold the keys of trainings"
    trainings = [task.spec for task in blocked.tasks.values() if isinstance(task.spec, TrainSpec)]
    assert {spec.recipe.engine for spec in trainings} == {"blocked"}
    assert any(isinstance(task.spec, MaskSpec) for task in blocked.tasks.values())
    assert [each.other_engine for each in by_every_engine(suite)] == [None, "blocked"]


def test_a_recipe_that_the_engine_does_not_apply_to_stays(tiny_suite: Path) -> None:
    low = tiny_suite.read_text().replace("batch_size: 64", "batch_size: 64\n      precision: bfloat16", 1)
    tiny_suite.write_text(low)
    with pytest.raises(SuiteError, match="--engine blocked: no network"):
        with_engine(load_suite(tiny_suite), "blocked")


def test_a_suite_runs_is_verified_and_read_by_an_engine(tiny_suite: Path, call: Call, tmp_path: Path) -> None:
    options = (tiny_suite, "--store", tmp_path / "store", "--engine", "blocked")
    part = ("--only", "imp", "--arm", "early", "--device", "cpu", "--workers", "0")
    code, out, err = call("run", *options, *part)
    assert code == 0, err
    assert "Trained by the blocked engine: 3 of 3 networks" in out and "--engine blocked" in out
    code, out, err = call("verify", *options, "--only", "imp", "--arm", "early")
    assert code == 2 and "tiny-blocked: no golden results" in err and "--engine blocked" in err
    code, out, _ = call("gc", tiny_suite, "--store", tmp_path / "store", "--json")
    assert (code, '"bytes": 0' in out) == (0, True), "what the suite has by another engine stays"


def test_each_engine_has_its_golden_results_and_its_report(tmp_path: Path, tiny_suite: Path) -> None:
    assert golden_folder(Path("suites/quick.yaml")) == Path("suites/golden/quick")
    assert golden_folder(Path("suites/quick.yaml"), "blocked") == Path("suites/golden/quick-blocked")
    plain, blocked = (api.load_suite(tiny_suite, tmp_path / "store", engine=engine) for engine in (None, "blocked"))
    assert api.report_folder(plain).name == "tiny" and api.report_folder(blocked).name == "tiny-blocked"
    text = tiny_suite.read_text().replace("    recipe:\n", "    recipe:\n      engine: blocked\n", 1)
    (tmp_path / "own.yaml").write_text(text)
    own = api.load_suite(tmp_path / "own.yaml", tmp_path / "store")
    assert {arm.recipe.engine for pair in own.suite.pairs.values() for arm in pair.arms.values()} == {"blocked"}
    assert api.report_folder(own).name == "own", "its recipes name the engine, nobody else does"


def test_the_environment_of_results_names_the_instruction_set_that_our_kernels_are_limited_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LTHBENCH_CPU_ISA", raising=False)
    before = environment(torch.device("cpu"))
    monkeypatch.setenv("LTHBENCH_CPU_ISA", "v3")
    now = environment(torch.device("cpu"))
    assert decisive_differences(before, now) == (("dispatch", before["dispatch"], now["dispatch"]),)
    assert "LTHBENCH_CPU_ISA=v3" in str(now["dispatch"])
