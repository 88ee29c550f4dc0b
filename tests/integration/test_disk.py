"""A store whose disk fills up or is read-only, and what a killed process leaves of a store."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import lthbench.runner.worker as work
import lthbench.tasks.run as tasks
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.subset import Subset
from lthbench.tasks.store import LAYOUT, MARKER, Store, StoreError


@pytest.mark.parametrize(
    ("number", "cure"),
    [(errno.ENOSPC, "the disk is full; free some space"), (errno.EROFS, "read-only here"), (errno.EDQUOT, "quota")],
)
def test_a_run_ends_where_the_disk_does_and_goes_on_when_there_is_room(
    number: int, cure: str, tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(load_suite(tiny_suite), Subset(experiments=("imp",)))
    store = Store(tmp_path / "store")
    store.check()
    real, written = work.write_json, []

    def full(path: Path, value: object, scratch: Path) -> None:
        if len(written) == 2:
            raise OSError(number, os.strerror(number), str(path))
        real(path, value, scratch)
        written.append(path)

    with monkeypatch.context() as patch:
        patch.setattr(work, "write_json", full)
        with pytest.raises(StoreError, match=f"{cure}.*Nothing that is finished is lost: the same command goes on"):
            run_plan(plan, Settings(store.root), num_workers=0)
    assert len(list(store.root.glob("tasks/*/*/result.json"))) == 2
    assert not store.failures(plan.tasks), "no task is at fault"
    outcome = run_plan(plan, Settings(store.root), num_workers=0)
    assert len(outcome.ran) == len(plan.tasks) - 2 and not outcome.failed


def test_a_store_is_whole_whenever_its_maker_was_killed(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    (root / f".{MARKER}.0123.tmp").touch()  # killed before the marker had its name
    Store(root).check()
    assert (root / MARKER).read_text() == f"{LAYOUT}\n"
    Store(root).check()


def test_a_task_that_another_process_finished_meanwhile_is_not_run_again(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(load_suite(tiny_suite), Subset(experiments=("imp",)))
    settings = Settings(tmp_path / "store")
    Store(settings.store).check()
    missing = list(plan.tasks)
    run_plan(plan, settings, num_workers=0)

    def never(*_: object) -> None:
        raise AssertionError("the task was run again")

    monkeypatch.setattr(tasks, "train", never)
    monkeypatch.setattr(tasks, "make_mask", never)
    assert not run_plan(plan, settings, num_workers=0, missing=missing).failed, "as of a view that is out of date"
