"""Tracked trainings: forgetting by its definition, the same weights, and the same bits after an interruption."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lthbench.data.loading import load
from lthbench.data.spec import DataSpec
from lthbench.experiments import Cell
from lthbench.models.spec import ModelSpec
from lthbench.tasks.network import make_network, set_initial_weights
from lthbench.tasks.tensor_files import read_tensors, write_tensors
from lthbench.training.forgetting import Tracker
from lthbench.training.loop import Trainer, evaluate
from lthbench.training.recipe import SGD, Recipe

DATA = DataSpec(name="fashion-mnist-10k", validation=50, num_train=200)


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
def test_an_image_is_forgotten_where_it_was_right_and_is_wrong_at_its_next_presentation(
    epochs: list[list[bool]],
) -> None:
    tracker = Tracker(1, 5, lambda model: 0.0, torch.device("cpu"))
    for number, right in enumerate(epochs):  # the images come in another order in each epoch
        order = torch.randperm(5, generator=torch.Generator().manual_seed(number))
        for index in order.split(2):
            tracker.present(index, torch.tensor(right)[index])
    histories = list(zip(*epochs, strict=True))
    forgotten = [sum(a and not b for a, b in pairwise(h)) for h in histories]
    never = [not any(h) for h in histories]
    assert tracker.metrics() == {
        "forgetting_events": sum(forgotten) / 5,
        "forgettable_share": sum(f > 0 or n for f, n in zip(forgotten, never, strict=True)) / 5,
        "never_learned_share": sum(never) / 5,
    }


def trainer(track: int | None) -> Trainer:
    """A training with augmentation and batch normalisation, tracked or not."""
    splits = load(DATA)
    spec = ModelSpec(name="resnet8", width=4)
    model = make_network(spec, DATA, torch.device("cpu"))
    set_initial_weights(model, spec, seed=0)
    recipe = Recipe.model_validate(
        {
            "steps": "3ep",
            "batch_size": 30,
            "optimizer": SGD(name="sgd", lr=0.1, momentum=0.9),
            "augment": {"crop": 2, "flip": True},
        }
    )
    tracker = None
    if track is not None:
        tracker = Tracker(track, 200, lambda m: evaluate(m, splits.validation)[1], torch.device("cpu"))
    return Trainer(model, splits.train, recipe, num_classes=10, seed=0, tracker=tracker, tracked=["fc.weight"])


def test_tracking_changes_no_weight_and_no_statistic() -> None:
    plain, tracked = trainer(None), trainer(2)
    assert plain.run() == tracked.run()
    for name, t in plain.model.state_dict().items():
        assert torch.equal(t, tracked.model.state_dict()[name]), name
    assert tracked.tracker is not None
    assert [step for step, _ in tracked.tracker.curve] == [*range(2, 21, 2), 21]
    assert 0 < tracked.tracker.metrics()["forgetting_events"] < 2


@pytest.mark.parametrize("stop", [1, 13])
def test_a_tracked_training_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path: Path, stop: int) -> None:
    class Killed(Exception): ...

    def kill(trainer: Trainer) -> None:
        if trainer.progress.step == stop:
            write_tensors(tmp_path / "checkpoint", *trainer.state())
            raise Killed

    straight, resumed = trainer(4), trainer(4)
    straight.run()
    with pytest.raises(Killed):
        trainer(4).run(on_step=kill)
    resumed.restore(*read_tensors(tmp_path / "checkpoint"))
    resumed.run()
    assert straight.tracker and resumed.tracker
    assert straight.tracker.curve == resumed.tracker.curve
    assert straight.tracker.metrics() == resumed.tracker.metrics()
    first, second = straight.state()[0], resumed.state()[0]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_tracked_training_is_a_task_of_its_own_and_leaves_the_plain_ones_key(cell: Cell) -> None:
    assert cell.dense().with_fields(track=None).key == cell.dense().key
    assert cell.dense().with_fields(track=5).key != cell.dense().key
