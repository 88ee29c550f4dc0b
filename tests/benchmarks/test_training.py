"""Images per second of training, against the usual frameworks' way (`baseline`), on two cores at batch size 128.

Ours runs as `lthbench run` runs it, a worker with one thread on each core, and also as one process with two
threads; the baseline as one process with torch's two threads, and also as two processes with one. They take
turns, each waiting while another is measured; medians are compared, and nothing here fails for being slow.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from baseline import UsualTraining, usual_loader
from contestant import Contestant, Rate

from lthbench.data.load import load
from lthbench.data.spec import DATASETS, Augment, DataSpec
from lthbench.models.spec import ModelSpec
from lthbench.runner.environment import make_deterministic
from lthbench.tasks.network import Layout, apply_mask, make_network, set_initial_weights
from lthbench.training.loop import Trainer
from lthbench.training.recipe import Recipe

PAIRS = {
    "lenet-fashion": ("lenet-300-100", "fashion-mnist", Augment(), 0.05, 1.0),
    "resnet20-cifar10": ("resnet20", "cifar10", Augment(crop=4, flip=True), 0.1, 4.0),
}
ROUNDS, DENSITY = 5, 0.5
"""Rounds in which every contestant has one turn, and the density of the mask (speeds do not depend on it)."""


def make_trainer(pair: str, root: Path, steps: str = "1000000it") -> Trainer:
    """Our training of a pair: half of the weights pruned at random."""
    model_name, data, augment, lr, _ = PAIRS[pair]
    spec = ModelSpec(name=model_name)
    images = load(DataSpec(name=data), root).train
    model = make_network(spec, images, DATASETS[data].num_classes)
    set_initial_weights(model, spec, seed=0)
    chance = torch.Generator().manual_seed(0)
    weights = dict(model.named_parameters())
    mask = {n: torch.rand(weights[n].shape, generator=chance) < DENSITY for n in Layout.of(model).prunable}
    apply_mask(model, mask)
    recipe = Recipe.model_validate(
        {
            "steps": steps,
            "batch_size": 128,
            "optimizer": {"name": "sgd", "lr": lr, "momentum": 0.9, "weight_decay": 1e-4},
            "augment": augment,
        }
    )
    return Trainer(model, images, recipe, seed=0, mask=mask)


def make_usual(trainer: Trainer, pair: str, root: Path) -> UsualTraining:
    """The baseline's training from the same weights, with the same mask and recipe."""
    _, data, augment, _, _ = PAIRS[pair]
    names = {p: n for n, p in trainer.model.named_parameters()}
    mask = {names[p]: m for p, m in trainer.optimizer.masks.items()}
    loader = usual_loader(data, root, trainer.batch_size, augment)
    return UsualTraining(trainer.model, loader, trainer.recipe.optimizer, mask)


def our_step(pair: str, root: Path) -> Callable[[], int]:
    make_deterministic(torch.get_num_threads())
    trainer = make_trainer(pair, root)
    trainer.model.train()

    def step() -> int:
        seen = trainer.progress.num_seen
        trainer.one_step()
        return trainer.progress.num_seen - seen

    return step


def usual_step(pair: str, root: Path) -> Callable[[], int]:
    return make_usual(make_trainer(pair, root), pair, root).step


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_training_speed(pair: str, data_root: Path, benchmark) -> None:  # type: ignore[no-untyped-def]
    contestants = {
        "usual, 1 process x 2 threads": Contestant(functools.partial(usual_step, pair, data_root), 1, 2),
        "usual, 2 processes x 1 thread": Contestant(functools.partial(usual_step, pair, data_root), 2, 1),
        "ours, 1 process x 2 threads": Contestant(functools.partial(our_step, pair, data_root), 1, 2),
        "ours, 2 processes x 1 thread": Contestant(functools.partial(our_step, pair, data_root), 2, 1),
    }
    rates: dict[str, list[Rate]] = {name: [] for name in contestants}
    others = []
    for _ in range(ROUNDS):
        for name, contestant in contestants.items():
            busy, begin = _busy_seconds(), time.perf_counter()
            rates[name].append(contestant.turn(PAIRS[pair][-1]))
            others.append((_busy_seconds() - busy) / (time.perf_counter() - begin) - rates[name][-1].cores)
    print(
        f"\n{pair}: medians of {ROUNDS} interleaved turns; other work kept {statistics.median(others):.2f} cores busy"
    )
    base = _median(rates["usual, 1 process x 2 threads"])
    for name, turns in rates.items():
        rate = _median(turns)
        print(
            f"  {name:30} {rate.images_per_second:9,.0f} images/s {rate.images_per_second / base.images_per_second:6.2f}x"
            f"   {1e6 * rate.cpu_seconds:7,.0f} us CPU an image {base.cpu_seconds / rate.cpu_seconds:6.2f}x"
        )
    benchmark.pedantic(contestants["ours, 2 processes x 1 thread"].turn, (PAIRS[pair][-1],), rounds=1)
    for contestant in contestants.values():
        contestant.close()


def _busy_seconds() -> float:
    """Core seconds that this machine has worked since it started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def _median(turns: list[Rate]) -> Rate:
    return Rate(*(statistics.median(values) for values in zip(*(vars(t).values() for t in turns), strict=True)))
