"""A process that is suspended at any moment of a task, until another has done it, changes nothing when it wakes."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lthbench.data.spec import DataSpec
from lthbench.models.spec import ModelSpec
from lthbench.runner.settings import Settings
from lthbench.runner.worker import Asked, Worker
from lthbench.tasks.context import Interrupted
from lthbench.tasks.paths import CHECKPOINT, DAMAGED, LEASE, RESULT, weights_file
from lthbench.tasks.spec import Task, TrainSpec
from lthbench.tasks.store import Store
from lthbench.training.recipe import Recipe

CHANGES = ("replace", "rename", "unlink", "mkdir")


@pytest.fixture
def task() -> Task:
    recipe = {"steps": "2it", "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.05}}
    return Task(
        TrainSpec(
            model=ModelSpec(name="lenet-300-100", width=4),
            data=DataSpec(name="fashion-mnist-10k", num_train=32, num_test=32),
            recipe=Recipe.model_validate(recipe),
            seed=0,
        )
    )


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that was and is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


class Sleeper:
    """Calls something once, before this process changes a folder for the so-manieth time: there it is suspended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, at: int, asleep: Callable[[], None]) -> None:
        self.changes, self.at, self.asleep, self.folder = 0, at, asleep, folder
        for name in CHANGES:
            monkeypatch.setattr(Path, name, self._wrapped(getattr(Path, name)))

    def _wrapped(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(path: Path, *arguments: Any, **options: Any) -> Any:
            if self.folder in (path, *path.parents):
                self.changes += 1
                if self.changes == self.at:
                    self.asleep()
            return change(path, *arguments, **options)

        return changed


def run(
    store: Store, task: Task, keep: frozenset[int], tell: Callable[[str], None] = print, asked: Asked = lambda: None
) -> dict[str, Any]:
    """Run the task in this process, with a checkpoint after every step."""
    worker = Worker(Settings(store.root, checkpoint_every=0.0), asked, tell)
    return worker.run(task.key, task.canonical, keep, lambda done, total: None)


def take_for_dead(folder: Path, pid: int) -> None:
    """Let the holder of a folder's lease be taken for dead, as after 90 s from another machine."""
    lease = folder / LEASE
    if lease.exists():
        lease.write_text(json.dumps(json.loads(lease.read_text()) | {"pid": pid}))


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Each file's number on the disk and when it was written."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def fresh(store: Store, task: Task) -> frozenset[int]:
    return frozenset({1})


def with_a_result_that_does_not_suffice(store: Store, task: Task) -> frozenset[int]:
    run(store, task, frozenset())
    return frozenset({1})


def with_a_checkpoint_past_what_is_to_be_kept(store: Store, task: Task) -> frozenset[int]:
    with pytest.raises(Interrupted):
        run(store, task, frozenset(), asked=lambda: "stop")
    return frozenset({0})


def with_a_damaged_checkpoint(store: Store, task: Task) -> frozenset[int]:
    store.folder(task.key).mkdir(parents=True)
    (store.folder(task.key) / CHECKPOINT).write_bytes(b"half of it")
    return frozenset()


@pytest.mark.parametrize(
    "begin",
    [
        fresh,
        with_a_result_that_does_not_suffice,
        with_a_checkpoint_past_what_is_to_be_kept,
        with_a_damaged_checkpoint,
    ],
)
def test_who_sleeps_before_any_change_of_a_folder_until_another_has_done_the_task_changes_nothing(
    begin: Callable[[Store, Task], frozenset[int]],
    task: Task,
    dead: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_as_if_it_had_not_waked(store: Store, at: int) -> bool:
        """Whether there was a change that it could sleep before."""
        store.check()
        folder, keep = store.folder(task.key), begin(store, task)
        left: dict[str, Any] = {}

        def asleep() -> None:
            take_for_dead(folder, dead)
            left.update(result=run(store, task, keep), files=contents(folder))

        told: list[str] = []
        with monkeypatch.context() as patch:
            Sleeper(patch, folder, at, asleep)
            result = run(store, task, keep, told.append)
        if not left:
            return False
        names = {"task.json", RESULT, "weights.safetensors", *(weights_file(step) for step in keep)}
        files = {name: file for name, file in contents(folder).items() if not name.endswith(DAMAGED)}
        assert files.keys() == names, (at, told)
        assert files == {name: left["files"][name] for name in names}, (at, "what the other wrote was changed")
        assert result == left["result"] and store.is_done(task.key, keep), (at, told)
        return True

    places = next(at for at in itertools.count() if not is_as_if_it_had_not_waked(Store(tmp_path / str(at)), at + 1))
    assert places > 10
