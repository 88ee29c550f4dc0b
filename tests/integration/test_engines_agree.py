"""Long trainings by the blocked engine: as near to torch's as those by two of its convolutions are to each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from lthbench.data.loading import load
from lthbench.data.spec import DataSpec
from lthbench.models.build import prunable
from lthbench.models.spec import ModelSpec
from lthbench.ops._library import kernels_available
from lthbench.suite.load import load_suite
from lthbench.suite.shipped import find_suite
from lthbench.tasks.network import apply_mask, make_network, set_initial_weights
from lthbench.training.loop import Trainer
from lthbench.training.recipe import SGD, Engine, Recipe
from lthbench.training.steps import Steps

STEPS = 200
# Training multiplies differences of rounding, by how much depends on where they first arise: two pairs of trainings
# that differ by rounding alone are seldom further from each other than this.
SPREAD = 3.0
LOSS = 0.15  # nats; the last epoch's loss of 256 images differs by up to a half of it then
# Real images where they are, those that ship with the package elsewhere.
DATA = DataSpec(name="cifar10" if os.environ.get("LTHBENCH_DATA") else "fashion-mnist-10k", num_train=256)

pytestmark = pytest.mark.skipif(not kernels_available("cpu"), reason="the blocked engine needs the kernels")


@pytest.fixture(autouse=True)
def _as_tasks_run() -> Iterator[None]:
    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(before)
    torch.set_num_threads(threads)


class Trained(NamedTuple):
    weights: dict[str, Tensor]
    loss: float  # mean of the last epoch

    def distance(self, other: Trained) -> float:
        """Of the weights."""
        return sum(float((self.weights[n] - other.weights[n]).square().sum()) for n in self.weights) ** 0.5


def trained(spec: ModelSpec, density: float, engine: Engine, *, onednn: bool = True) -> Trained:
    """The end of STEPS steps of a network that is pruned at random between its first and its last layer.

    Args:
        onednn: whether torch's convolutions are oneDNN's; without, they are matrix products, by other sums.
    """
    model = make_network(spec, DATA, torch.device("cpu")).to(memory_format=torch.channels_last)
    set_initial_weights(model, spec, seed=0)
    g, weights = torch.Generator().manual_seed(1), dict(model.named_parameters())
    mask = {name: torch.rand(weights[name].shape, generator=g) < density for name in prunable(model, spec)[1:-1]}
    apply_mask(model, mask)
    optimizer = SGD(name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4)
    recipe = Recipe(steps=Steps(iterations=STEPS), batch_size=8, optimizer=optimizer, engine=engine)
    with torch.backends.mkldnn.flags(enabled=onednn):
        progress = Trainer(model, load(DATA).train, recipe, num_classes=10, seed=0, mask=mask).run()
    assert progress.step == STEPS and progress.diverged_at is None
    return Trained({name: p.detach().double() for name, p in model.named_parameters()}, progress.epoch_losses[-1])


@pytest.mark.parametrize("density", [1.0, 0.2])
def test_a_long_training_is_as_near_to_torchs_as_another_convolution_of_torchs_is(density: float) -> None:
    spec = ModelSpec(name="resnet8", width=4)
    usual = trained(spec, density, "torch")
    other = trained(spec, density, "torch", onednn=False)
    blocked = trained(spec, density, "blocked")
    between = usual.distance(other)
    assert between > 0, "both convolutions have the same bits: nothing is compared"
    assert min(blocked.distance(usual), blocked.distance(other)) <= SPREAD * between
    assert abs(blocked.loss - usual.loss) <= SPREAD * abs(other.loss - usual.loss) + LOSS


def test_at_the_densities_of_quick_both_engines_have_the_same_bits_and_so_its_verdicts() -> None:
    pair = load_suite(find_suite(Path("quick"))).pairs["lenet-garments"]
    ends = []
    for engine in ("torch", "blocked"):
        model = make_network(pair.model, pair.data, torch.device("cpu"))
        set_initial_weights(model, pair.model, seed=0)
        g, weights = torch.Generator().manual_seed(1), dict(model.named_parameters())
        density = (1 - pair.pruning.rate) ** 4  # of its last level
        mask = {n: torch.rand(weights[n].shape, generator=g) < density for n in prunable(model, pair.model)}
        apply_mask(model, mask)
        recipe = pair.arms["late"].recipe.model_copy(update={"engine": engine, "steps": Steps(iterations=4)})
        Trainer(model, load(pair.data).train, recipe, num_classes=4, seed=0, mask=mask).run()
        ends.append(list(model.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
