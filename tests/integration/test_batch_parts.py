"""Batches in parts and averaged weights: what a plain loop of torch gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import plan_of, run_here
from integration.rank_program import CASES, images_of, mask_of, trainer_of
from pydantic import ValidationError
from torch import Tensor, nn

from lthbench.data.images import ImageSet
from lthbench.experiments import Cell
from lthbench.models.spec import ModelSpec
from lthbench.suite.plan import Plan
from lthbench.tasks.layout import Layout
from lthbench.tasks.network import apply_mask, make_network, set_initial_weights, weights_of
from lthbench.tasks.paths import weights_file
from lthbench.tasks.spec import Task, TrainSpec
from lthbench.tasks.store import Store
from lthbench.tasks.tensor_files import digest, read_tensors
from lthbench.training.learning_distance import learning_distance
from lthbench.training.loop import Trainer
from lthbench.training.recipe import Recipe
from lthbench.training.streams import stream

# LeNet has no normalisation; ResNet-8 has. 21 images in batches of 8: the last is of 5, in micro batches of 3 and 2.
LENET, RESNET = "lenet", "resnet8 in micro batches"


def usual(trainer: Trainer, micro: int, each_step: Callable[[nn.Module], None] = lambda model: None) -> list[float]:
    """Train as `trainer` would with torch alone: micro batches, gradients summed, masks multiplied in; the losses."""
    model, options = trainer.model, trainer.recipe.optimizer
    weights = dict(model.named_parameters())
    mask, begun = mask_of(model), weights_of(model)
    optimizer = torch.optim.SGD(
        model.parameters(),
        options.lr,
        options.momentum,
        weight_decay=options.weight_decay,  # type: ignore[union-attr]
    )
    model.train()
    losses = []
    for epoch in range(3):
        order = torch.from_numpy(stream(0, "order", 0, epoch).permutation(len(trainer.images)))
        total = 0.0
        for index in order.split(8):
            optimizer.zero_grad()
            for rows in index.split(micro):
                logits = model(trainer.images.batch(rows))
                loss = F.cross_entropy(logits, trainer.images.labels[rows], reduction="sum") / len(index)
                loss.backward()
                total += loss.item() * len(index)
            for name in mask:
                weights[name].grad += trainer.recipe.pull * (weights[name].detach() - begun[name])  # type: ignore
            optimizer.step()
            apply_mask(model, mask)
            each_step(model)
        losses.append(total / len(trainer.images))
    return losses


def assert_close(trainer: Trainer, expected: dict[str, Tensor]) -> None:
    for name, weight in trainer.model.state_dict().items():
        assert torch.allclose(weight.double(), expected[name].double(), rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("name", [LENET, RESNET])
@pytest.mark.parametrize("pull", [0.0, 1e-2])
def test_micro_batches_give_what_summing_their_gradients_gives(name: str, pull: float) -> None:
    ours, theirs = (trainer_of(name, micro_batch=3, pull=pull) for _ in range(2))
    losses = usual(theirs, micro=3)
    assert ours.run().epoch_losses == pytest.approx(losses, rel=1e-9)
    assert_close(ours, weights_of(theirs.model))
    for key, survivors in mask_of(ours.model).items():
        assert not ours.model.get_parameter(key)[~survivors].any()


def test_without_batch_normalisation_micro_batches_change_nothing_and_with_it_they_do() -> None:
    lenet, resnet = (trainer_of(name, micro_batch=None) for name in (LENET, RESNET))
    for whole in (lenet, resnet):
        whole.run()
    lenet_micro, resnet_micro = (trainer_of(name, micro_batch=3) for name in (LENET, RESNET))
    lenet_micro.run()
    assert_close(lenet_micro, weights_of(lenet.model))
    resnet_micro.run()
    assert resnet_micro.progress.epoch_losses[0] != pytest.approx(resnet.progress.epoch_losses[0], rel=1e-3)


def test_micro_batches_in_bfloat16_agree_with_the_whole_batch_to_its_precision() -> None:
    losses = [single_precision(precision="bfloat16", micro_batch=micro).run().epoch_losses for micro in (None, 3)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01) and losses[0] != losses[1]


def single_precision(**changes: Any) -> Trainer:
    """The LeNet of the cases in float32, whole and without masks."""
    case = trainer_of(LENET)
    set_initial_weights(case.model.float(), ModelSpec(**CASES[LENET][0]), seed=0)
    recipe = case.recipe.model_dump() | changes
    return Trainer(case.model, images_of(21, 16, ImageSet), Recipe.model_validate(recipe), num_classes=10, seed=0)


@pytest.mark.parametrize("micro", [8, 9])
def test_micro_batches_no_smaller_than_a_batch_are_refused(micro: int) -> None:
    with pytest.raises(ValidationError, match=f"micro_batch is {micro}, no smaller than the batch_size of 8"):
        trainer_of(LENET, micro_batch=micro)


@pytest.mark.parametrize("name", [LENET, "resnet8"])
def test_the_average_is_that_of_a_plain_loop_and_exactly_0_where_weights_are_pruned(name: str) -> None:
    decay = 0.7
    ours, theirs = (trainer_of(name, ema=decay, augment={}, label_smoothing=0) for _ in range(2))
    average = weights_of(theirs.model)

    def update(model: nn.Module) -> None:
        for key, weight in model.state_dict().items():
            average[key] = average[key] * decay + weight * (1 - decay) if weight.is_floating_point() else weight.clone()

    usual(theirs, micro=8, each_step=update)
    ours.run()
    assert_close(ours, weights_of(theirs.model))
    assert ours.average is not None
    trained = weights_of(ours.model)
    ours.average.copy_to_model()
    assert_close(ours, average)
    for key, survivors in mask_of(ours.model).items():
        weight = ours.model.get_parameter(key)
        assert not weight[~survivors].any() and not torch.equal(weight, trained[key])


def test_an_averaged_training_resumes_to_the_same_bits() -> None:
    straight, stopped, resumed = (trainer_of("resnet8 averaged") for _ in range(3))
    straight.run()
    saved: list[tuple[dict[str, Tensor], dict[str, Any]]] = []
    stopped.run(on_step=lambda t: saved.append(({n: v.clone() for n, v in t.state()[0].items()}, dict(t.state()[1]))))
    resumed.restore(*saved[3])
    resumed.run()
    ends = [t.state()[0] for t in (straight, resumed)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert any(key.startswith("average.") for key in ends[0])


def test_a_training_that_averages_results_in_the_average_but_keeps_steps_of_the_way_itself(
    tiny_run: tuple[Plan, Store], cell: Cell, tmp_path: Path
) -> None:
    averaged, plain = (
        Task(TrainSpec(model=cell.model, data=cell.data, recipe=cell.recipe.model_copy(update={"ema": ema}), seed=0))
        for ema in (0.9, 0.0)
    )
    plan = plan_of(tiny_run[0], cell, averaged, plain)
    for task in (averaged, plain):
        plan.keep.setdefault(task.key, set()).update({0, 7})
    store = run_here(plan, tmp_path)[1]

    def weights(task: Task, step: int | None) -> dict[str, Tensor]:
        return read_tensors(store.folder(task.key) / weights_file(step))[0]

    start, end = weights(averaged, 0), weights(averaged, None)
    assert digest(weights(averaged, 7)) == digest(weights(plain, 7))
    assert digest(end) != digest(weights(plain, None))
    results = [store.result(task.key) for task in (averaged, plain)]
    assert results[0] and results[1]
    assert results[0]["metrics"]["distance"] == pytest.approx(
        learning_distance(
            start, end, None, Layout.of(make_network(cell.model, cell.data, end["fc.bias"].device), cell.model).prunable
        )["distance"]
    )
    assert results[0]["epoch_losses"] == results[1]["epoch_losses"]
    assert results[0]["metrics"]["path_length"] == results[1]["metrics"]["path_length"]
    assert results[0]["metrics"]["distance"] < results[1]["metrics"]["distance"], "an average lags behind"
