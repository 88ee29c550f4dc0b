"""Every pair of the paper really trains: dense, a ticket, a barrier and a resume, on a handful of its own images."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import plan_of, run_here

from lthbench.data.image_folder import class_list_id
from lthbench.data.loading import Splits, load
from lthbench.data.prepare import prepare
from lthbench.data.spec import DATASETS, DataSpec
from lthbench.experiments import Cell
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan
from lthbench.tasks import context, interpolate, train
from lthbench.tasks.header import read_note
from lthbench.tasks.paths import CHECKPOINT, MASK, weights_file
from lthbench.tasks.store import Store
from lthbench.tasks.tensor_files import read_mask, read_tensors, write_checkpoint
from lthbench.training.steps import Steps

SUITE = load_suite(Path(__file__).parents[2] / "suites" / "paper.yaml")
# Tiny-ImageNet's images stand in for what is not at hand, in the layout of what they stand in for.
TINY, IMAGENET = "tinyimagenet-10pct", "imagenet100"
STAND_INS = {"cifar100": "cifar100-mini", "tinyimagenet": TINY}


@pytest.fixture(scope="module")
def few_images(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the prepared stand-ins; the class list of ImageNet's is in `classes.txt`."""
    root = tmp_path_factory.mktemp("data")
    for entry in data_root.iterdir():
        if entry.name != "prepared":
            (root / entry.name).symlink_to(entry.resolve())
    tree = data_root.resolve() / DATASETS[TINY].folder
    classes = sorted(folder.name for folder in (tree / "train").iterdir())[::2]
    for name in classes:
        for split in ("train", "val"):
            place = root / "imagenet" / split / name
            place.mkdir(parents=True)
            image = min((tree / split / name).rglob("*.JPEG"))
            (place / image.name).symlink_to(image)
    (root / "classes.txt").write_text("\n".join(classes))
    prepare(TINY, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, IMAGENET, dataclasses.replace(DATASETS[IMAGENET], num_test=len(classes)))
        prepare(IMAGENET, root, class_list=root / "classes.txt")
    return root


@pytest.fixture
def four_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A specification says how many images to train on, but not to test on."""

    def load_few(*args: Any) -> Splits:
        splits = load(*args)
        return splits._replace(test=splits.test.subset(torch.arange(4)))

    monkeypatch.setitem(DATASETS, IMAGENET, dataclasses.replace(DATASETS[IMAGENET], num_test=100))
    monkeypatch.setattr(train, "load", load_few)
    monkeypatch.setattr(interpolate, "load", load_few)


class Killed(BaseException):
    """What a kill is to a process: nothing after it runs."""


@pytest.mark.slow
@pytest.mark.parametrize("pair", SUITE.pairs)
def test_a_pair_trains_prunes_and_interpolates_and_resumes_a_killed_training_to_the_same_bits(
    pair: str, few_images: Path, four_test_images: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = small(next(cell for cell in SUITE.cells() if cell.pair == pair and cell.arm.startswith("late")), few_images)
    mask = cell.mask(1)
    assert mask is not None
    child = cell.train(noise=9)
    line = cell.line(cell.dense(), child, points=3)
    tasks = [cell.dense(), mask, cell.ticket(1), child, line]
    settings = Settings(tmp_path / "killed", data=few_images)

    def die_after_two_steps(path: Path, *content: Any) -> None:
        write_checkpoint(path, *content)
        if read_note(path)["progress"]["step"] == 2:
            raise Killed

    plan = plan_of(Plan(SUITE), cell, *tasks)
    with monkeypatch.context() as patch:
        patch.setattr(context, "write_checkpoint", die_after_two_steps)
        with pytest.raises(Killed):
            run_plan(plan, dataclasses.replace(settings, checkpoint_every=0), num_workers=0)
    assert (Store(settings.store).folder(cell.dense().key) / CHECKPOINT).exists()
    failed = run_plan(plan, settings, num_workers=0).failed
    assert not failed, failed

    straight = run_here(plan_of(Plan(SUITE), cell, cell.dense()), tmp_path / "straight", few_images)[1]
    store = Store(settings.store)
    results = {task.key: store.result(task.key) for task in tasks}
    measured, expected = results[cell.dense().key], straight.result(cell.dense().key)
    assert measured and expected
    for name in ("digests", "epoch_losses", "metrics"):
        assert measured[name] == expected[name], name
    assert all(result and result["status"] == "ok" for result in results.values())
    survivors = read_mask(store.folder(mask.key) / MASK)
    weights = read_tensors(store.folder(cell.ticket(1).key) / weights_file(None))[0]
    assert all(not weights[name][~kept].any() for name, kept in survivors.items())
    assert results[mask.key]["metrics"]["density"] == pytest.approx(1 - cell.pruning.rate, abs=0.1)
    ends = [1 - results[task.key]["metrics"]["test_accuracy"] for task in (cell.dense(), child)]
    assert results[line.key]["curves"]["test_error"][::2] == pytest.approx(ends)


def small(cell: Cell, root: Path) -> Cell:
    """The cell with its whole recipe, but four images for two epochs of two batches."""
    name = STAND_INS.get(cell.data.name, cell.data.name)
    fields: dict[str, Any] = {"name": name, "num_train": 4}
    if name == IMAGENET:
        fields["class_list"] = class_list_id((root / "classes.txt").read_text().split())
    recipe = cell.recipe.model_copy(update={"steps": Steps(2), "batch_size": 2})
    return dataclasses.replace(cell, data=DataSpec(**fields), recipe=recipe, search=recipe)
