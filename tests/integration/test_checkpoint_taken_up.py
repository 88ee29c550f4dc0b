"""What a training is taken up from is checked against what is asked of it by now."""

from __future__ import annotations

import json
import shutil
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from lthbench.data.spec import DataSpec
from lthbench.documents import DocumentError
from lthbench.models.spec import ModelSpec
from lthbench.runner import worker
from lthbench.runner.settings import Settings
from lthbench.runner.worker import Worker
from lthbench.tasks.context import Interrupted
from lthbench.tasks.paths import CHECKPOINT, LEASE, weights_file
from lthbench.tasks.spec import Task, TrainSpec
from lthbench.tasks.store import Store
from lthbench.tasks.tensor_files import read_checkpoint, write_checkpoint, write_tensors
from lthbench.training.recipe import Recipe


def training(seed: int = 0) -> Task:
    recipe = {"steps": "8it", "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}
    return Task(
        TrainSpec(
            model=ModelSpec(name="lenet-300-100", width=10),
            data=DataSpec(name="fashion-mnist-10k", num_train=100, num_test=100),
            recipe=Recipe.model_validate(recipe),
            seed=seed,
        )
    )


class Runs:
    """A store, and a training that runs in it."""

    def __init__(self, root: Path) -> None:
        self.store, self.task, self.told = Store(root), training(), list[str]()
        self.store.check()
        self.folder = self.store.folder(self.task.key)

    def stopped(self, keep: set[int], step: int) -> Runs:
        """Let it stop after so many steps."""
        steps = count(1)
        with pytest.raises(Interrupted):
            self._run(keep, Worker(Settings(self.store.root), lambda: "stop" if next(steps) == step else None))
        return self

    def finished(self, keep: set[int]) -> dict[str, object]:
        """Let it go on to its end."""
        result = self._run(keep, Worker(Settings(self.store.root), tell=self.told.append))
        assert self.store.is_done(self.task.key, keep) and not self.store.inspect(self.task.key)
        assert not (self.folder / CHECKPOINT).exists() and not list(self.folder.glob(".*"))
        return {name: result[name] for name in ("artefacts", "metrics", "digests", "epoch_losses")}

    def _run(self, keep: set[int], worker: Worker) -> dict[str, object]:
        return worker.run(self.task.key, self.task.canonical, frozenset(keep), lambda done, total: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return Runs(tmp_path_factory.mktemp("undisturbed") / "store").finished({2, 6})


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "store")


@pytest.mark.parametrize("change", [{"torch": "1.0"}, {"processor": "another"}, {"threads": 64}])
def test_a_checkpoint_of_another_environment_is_told_of_and_the_training_starts_over(
    change: dict[str, object], runs: Runs, undisturbed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker.environment
    monkeypatch.setattr(worker, "environment", lambda device: real(device) | change)
    runs.stopped({2, 6}, 4)
    monkeypatch.setattr(worker, "environment", real)
    assert runs.finished({2, 6}) == undisturbed
    (told,) = runs.told
    (name,) = change
    assert f"another environment, so that results would differ bitwise: {name} (" in told and "starts over" in told


def test_another_version_of_python_takes_a_checkpoint_up(
    runs: Runs, undisturbed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = worker.environment
    monkeypatch.setattr(worker, "environment", lambda device: real(device) | {"python": "3.99"})
    runs.stopped({2, 6}, 4)
    monkeypatch.setattr(worker, "environment", real)
    assert runs.finished({2, 6}) == undisturbed and not runs.told


def test_a_training_goes_on_from_its_checkpoint_with_the_steps_kept_before_it(
    runs: Runs, undisturbed: dict[str, object]
) -> None:
    assert runs.stopped({2, 6}, 4).finished({2, 6}) == undisturbed
    assert not runs.told


@pytest.mark.parametrize("asked_before", [set(), {6}, {1, 6}])
def test_a_checkpoint_past_a_step_that_is_to_be_kept_by_now_is_not_taken_up(
    asked_before: set[int], runs: Runs, undisturbed: dict[str, object]
) -> None:
    assert runs.stopped(asked_before, 4).finished({2, 6}) == undisturbed
    assert "is past what is to be kept by now: weights-2.safetensors" in runs.told[0]


def test_a_checkpoint_is_not_taken_up_where_a_step_kept_before_it_is_damaged(
    runs: Runs, undisturbed: dict[str, object]
) -> None:
    runs.stopped({2, 6}, 4)
    kept = runs.folder / weights_file(2)
    kept.write_bytes(kept.read_bytes()[:-1] + b"\xff")
    assert runs.finished({2, 6}) == undisturbed
    assert str(kept) in runs.told[0] and "starts over" in runs.told[0]


def test_a_damaged_checkpoint_is_set_aside_and_named(runs: Runs, undisturbed: dict[str, object]) -> None:
    runs.stopped({2, 6}, 4)
    path = runs.folder / CHECKPOINT
    content = bytearray(path.read_bytes())
    for place in (8, 200, len(content) // 2, len(content) - 1):  # header, note, tensors
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DocumentError):
            read_checkpoint(path)
    assert runs.finished({2, 6}) == undisturbed
    assert str(path) in runs.told[0] and path.with_name(path.name + ".damaged").exists()


def test_another_training_s_checkpoint_is_not_taken_up(runs: Runs, undisturbed: dict[str, object]) -> None:
    runs.stopped({2, 6}, 4)
    other = Runs(runs.store.root)
    other.task = training(seed=1)
    other.folder = other.store.folder(other.task.key)
    other.stopped({2, 6}, 3)
    shutil.copy(other.folder / CHECKPOINT, runs.folder / CHECKPOINT)
    assert runs.finished({2, 6}) == undisturbed
    assert "is of another training" in runs.told[0]


def test_a_note_of_another_form_is_no_checkpoint(runs: Runs, undisturbed: dict[str, object]) -> None:
    runs.stopped({2, 6}, 4)
    tensors, note = read_checkpoint(runs.folder / CHECKPOINT)
    write_checkpoint(runs.folder / CHECKPOINT, tensors, note | {"progress": {"step": "4"}})
    assert runs.finished({2, 6}) == undisturbed
    write_tensors(runs.folder / "plain", tensors, json.loads(json.dumps(note)))
    with pytest.raises(DocumentError, match="its digest is another"):
        read_checkpoint(runs.folder / "plain")


@pytest.mark.parametrize("asked", ["save", "stop", None])
def test_who_wakes_after_another_took_its_task_over_writes_nothing_more(
    asked: Literal["save", "stop"] | None, runs: Runs, undisturbed: dict[str, object]
) -> None:
    before: dict[Path, int] = {}
    steps = count(1)

    def sleep_through_a_takeover() -> Literal["save", "stop"] | None:
        if next(steps) != 4:
            return None
        (runs.folder / LEASE).unlink()  # as who waited for 90 s in vain has it
        assert runs.finished({2, 6}) == undisturbed
        before.update({path: path.stat().st_mtime_ns for path in runs.folder.iterdir()})
        return asked

    told: list[str] = []
    worker = Worker(Settings(runs.store.root), sleep_through_a_takeover, told.append)
    result = runs._run({2, 6}, worker)
    assert result == runs.store.result(runs.task.key), "the other's result is taken"
    assert {path: path.stat().st_mtime_ns for path in runs.folder.iterdir()} == before
    assert "another process took over" in told[0]


def test_what_killed_processes_had_half_written_is_gone_when_the_task_is_done(runs: Runs) -> None:
    scratch = runs.folder / ".scratch-dead"
    scratch.mkdir(parents=True)
    (scratch / ".weights.safetensors.1.tmp").write_bytes(b"half")
    runs.finished(set())
    assert sorted(path.name for path in runs.folder.iterdir()) == ["result.json", "task.json", "weights.safetensors"]
