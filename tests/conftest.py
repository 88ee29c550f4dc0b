"""A suite that runs in seconds, and stores filled from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch

from lthbench.experiments import Cell
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.spec import Task
from lthbench.tasks.store import Store

pytest_plugins = ["cuda_stand_in"]
# Each run tries the same examples, however busy the machine is and whatever was found before.
hypothesis.settings.register_profile("lthbench", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("lthbench")

TINY = """\
title: tiny
replicates: 1
pairs:
  tiny:
    model: {name: lenet-300-100, width: 10}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 300}
    pruning: {rate: 0.36, rates: {head: 0.18}}
    recipe:
      steps: 3ep
      batch_size: 64
      optimizer: {name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1.0e-3}
    arms:
      early: {}
      late: {recipe: {optimizer: {lr: 0.2}}}
    experiments:
      imp: {levels: 2}
      rewound: {kind: imp, levels: 2, rewind: 1ep, arms: [early]}
      controls: {levels: [2]}
      stability: {spawns: [0it, 1ep2it], points: 5, num_train: 200}
"""


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls `lthbench WORDS` in this process: exit code, standard output, standard error."""
    from lthbench.cli import main

    def called(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["lthbench", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    return called


@pytest.fixture(autouse=True)
def no_report_after_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs take half a second; their reports take seconds."""
    monkeypatch.setenv("LTHBENCH_REPORT", "0")


@pytest.fixture(autouse=True)
def no_timing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans would take seconds more, and say hours of their own."""
    monkeypatch.setenv("LTHBENCH_MEASURE", "0")


@pytest.fixture
def tiny_suite(tmp_path: Path) -> Path:
    """The path of a suite of a narrow LeNet on 300 of the embedded images."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """The plan of that suite and a store where it has run, to be read only."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(TINY)
    return run_here(make_plan(load_suite(folder / "tiny.yaml")), folder / "store")


def run_here(plan: Plan, root: Path, data: Path | None = None) -> tuple[Plan, Store]:
    """Run a plan in this process."""
    store = Store(root)
    store.check()
    outcome = run_plan(plan, Settings(root, data=data), num_workers=0)
    assert not outcome.failed, outcome.failed
    return plan, store


def plan_of(plan: Plan, cell: Cell, *tasks: Task) -> Plan:
    """A plan of just these tasks of a cell."""
    new = Plan(plan.suite)
    for task in tasks:
        new.add(task, "test", cell)
    return new


@pytest.fixture
def cell(tiny_run: tuple[Plan, Store]) -> Cell:
    """The early arm of the tiny suite, replicate 0."""
    return next(iter(tiny_run[0].suite.cells()))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Bits may depend on the number of threads; the tests use one."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """What a test draws from torch's generator does not depend on the tests before it in this process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Calibrations of the machine are neither read nor written by tests."""
    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the full data sets; tests that need one are skipped where LTHBENCH_DATA is not set."""
    root = os.environ.get("LTHBENCH_DATA")
    if not root:
        pytest.skip("needs the full data sets: set LTHBENCH_DATA to their folder")
    return Path(root)
