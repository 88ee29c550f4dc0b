"""Removing what no suite needs: all of it, nothing else, and nothing half, whenever it is killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Call, plan_of, run_here

from lthbench.experiments import Cell
from lthbench.lease import Lease
from lthbench.runner.garbage import find_garbage, remove
from lthbench.runner.inspection import inspect_store, keys_of
from lthbench.runner.settings import Settings
from lthbench.runner.worker import Worker
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.paths import LEASE
from lthbench.tasks.store import Store
from lthbench.tasks.store_readme import README


@pytest.fixture
def store(tiny_run: tuple[Plan, Store], tmp_path: Path) -> Store:
    """A store in which a suite has run, to be changed."""
    shutil.copytree(tiny_run[1].root, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def less(tmp_path: Path) -> Path:
    """A suite that needs a part of what has run."""
    path = tmp_path / "less.yaml"
    path.write_text(TINY[: TINY.index("      rewound:")].replace("levels: 2", "levels: 1"))
    return path


def missing(suite: Path, store: Store) -> list[str]:
    plan = make_plan(load_suite(suite), result_of=store.result)
    return store.missing({key: plan.kept(key) for key in plan.tasks})


def test_what_no_suite_needs_is_shown_and_removed_only_when_asked(
    call: Call, store: Store, less: Path, tiny_suite: Path
) -> None:
    before = keys_of(store)
    needed = set(make_plan(load_suite(less)).tasks)
    code, out, _ = call("gc", less, "--store", store.root)
    assert code == 0 and f"needed by {less}: {len(needed)} tasks" in out and "--yes` removes it" in out
    assert keys_of(store) == before
    code, out, _ = call("gc", less, "--store", store.root, "--yes")
    assert code == 0 and f"removed: {len(before) - len(needed)} tasks" in out
    assert set(keys_of(store)) == needed
    assert missing(less, store) == [] and inspect_store(store).is_sound
    assert not (store.root / "trash").exists()


def test_what_any_of_several_suites_needs_stays(call: Call, store: Store, less: Path, tiny_suite: Path) -> None:
    before = keys_of(store)
    assert call("gc", less, tiny_suite, "--store", store.root, "--yes")[0] == 0
    assert keys_of(store) == before


def test_a_task_that_a_process_works_at_stays(call: Call, store: Store, less: Path, cell: Cell) -> None:
    key = cell.ticket(2).key
    with Lease(store.folder(key) / LEASE):
        code, _, err = call("gc", less, "--store", store.root, "--yes")
        assert code == 0 and f"{store.folder(key)}: a process works at it" in err
        assert store.is_done(key)
    assert call("gc", less, "--store", store.root, "--yes")[0] == 0
    assert not store.folder(key).exists()


@pytest.mark.parametrize("killed_at", ["rename", "rmtree"])
def test_killed_at_any_moment_a_task_is_whole_or_gone(
    killed_at: str, store: Store, less: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_garbage(store, lambda: make_plan(load_suite(less)).tasks)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if killed_at == "rename":
            patched.setattr("pathlib.Path.rename", killed)
        else:
            patched.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(store, found.sizes)
    assert inspect_store(store).is_sound and missing(less, store) == []
    again = find_garbage(store, lambda: make_plan(load_suite(less)).tasks)
    assert again.total >= found.total, "what lies in the trash is counted"
    assert remove(store, again.sizes) == []
    assert find_garbage(store, lambda: make_plan(load_suite(less)).tasks).total == 0


def test_what_begins_while_suites_are_planned_is_no_garbage(store: Store, less: Path, tmp_path: Path) -> None:
    new = "f" * 32

    def planned() -> set[str]:
        store.folder(new).mkdir(parents=True)  # as a run does that chose a task meanwhile
        return set()

    found = find_garbage(store, planned)
    assert new not in found.sizes and found.num_kept == 0 and len(found.sizes) == len(keys_of(store)) - 1


def test_a_task_whose_folder_is_taken_away_before_it_is_held_is_run_all_the_same(
    tiny_run: tuple[Plan, Store], cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, store = plan_of(tiny_run[0], cell, cell.dense()), Store(tmp_path / "new")
    store.check()
    create, taken = Lease._create, []

    def once(self: Lease, path: Path) -> Any:
        if not taken:
            taken.append(shutil.rmtree(path.parent))
        return create(self, path)

    monkeypatch.setattr(Lease, "_create", once)
    (key,) = plan.tasks
    Worker(Settings(store.root)).run(key, plan.tasks[key].canonical, frozenset(), lambda done, total: None)
    assert taken and store.is_done(key)


def test_a_store_explains_itself_in_five_lines(tmp_path: Path, tiny_run: tuple[Plan, Store], cell: Cell) -> None:
    _, store = run_here(plan_of(tiny_run[0], cell, cell.dense()), tmp_path / "store")
    text = (store.root / README).read_text()
    assert len(text.splitlines()) == 5
    assert {path.name for path in store.folder(cell.dense().key).iterdir()} == {
        name for name in ("task.json", "result.json", "weights.safetensors") if name.split(".")[0] in text
    }
    (store.root / README).write_text("mine\n")
    store.check()
    assert (store.root / README).read_text() == "mine\n", "what somebody wrote there stays"
