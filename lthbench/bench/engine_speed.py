"""`lthbench bench engine`: time against density of the blocked engine, beside the dense line of torch's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from lthbench.bench.throughput import noise_images
from lthbench.bench.timing import interleaved
from lthbench.data.spec import DATASETS, DataSpec
from lthbench.engine.blocked_evaluation import blocked_evaluation
from lthbench.models.build import prunable
from lthbench.models.spec import ModelSpec
from lthbench.ops.convolution import SparsityPattern, to_blocks
from lthbench.ops.masked_convolution import MaskedConvolution
from lthbench.ops.normalisation import Activations
from lthbench.tasks.network import apply_mask, make_network, set_initial_weights
from lthbench.training.loop import Trainer, evaluate
from lthbench.training.recipe import SGD, Recipe
from lthbench.training.steps import Steps

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Network:
    """A network that is timed: on images of the size of a data set's, so many per training batch."""

    data: str
    batch: int


NETWORKS = {
    "resnet20": Network("cifar10", 128),
    "vgg16": Network("cifar10", 32),
    "resnet18": Network("tinyimagenet", 16),
    "lenet-300-100": Network("fashion-mnist", 64),
}


@dataclass(frozen=True)
class EnginePoint:
    """One network, or layer, at one density.

    Attributes:
        network: its name; of a layer, what it is.
        work: `training step`, `evaluation`, or of a layer `forward and gradients`.
        batch: images.
        torch_ms: of the dense masked computation by torch, channels last, at whatever density.
        blocked_ms: of the blocked engine; None where it does not apply.
    """

    network: str
    work: str
    batch: int
    density: float
    torch_ms: float
    blocked_ms: float | None

    @property
    def ratio(self) -> float | None:
        """How many times as fast the blocked engine is."""
        return None if self.blocked_ms is None else self.torch_ms / self.blocked_ms


def crossover(points: Sequence[EnginePoint]) -> float | None:
    """The density under which the blocked engine is the faster one, between measured ones on a logarithmic scale.

    1 where it always is, None where it never is.

    Args:
        points: of one network and work, densities descending.
    """
    ratios = [(math.log(point.density), math.log(point.ratio)) for point in points if point.ratio is not None]
    if not ratios or ratios[-1][1] <= 0:
        return None
    for (dense, slow), (sparse, fast) in reversed(list(pairwise(ratios))):
        if slow <= 0 < fast:
            return math.exp(dense + (sparse - dense) * -slow / (fast - slow))
    return 1.0


def network_points(name: str, densities: Sequence[float], rounds: int) -> Iterator[list[EnginePoint]]:
    """Time a training step, and the evaluation of a batch, at all densities, interleaved; a list for each work.

    Masks are random, of all weights but those of the first convolution and the last layer.
    """
    spec, network = ModelSpec(name=name), NETWORKS[name]
    images = noise_images(network.data, network.batch, CPU)
    steps: dict[str, Callable[[], object]] = {}
    for engine, density in [("torch", densities[-1]), *(("blocked", density) for density in densities)]:
        model, mask = _masked(spec, network.data, density)
        recipe = Recipe(
            steps=Steps(iterations=10**9),
            batch_size=network.batch,
            optimizer=SGD(name="sgd", lr=1e-9, momentum=0.9, weight_decay=1e-4),
            engine=engine,
        )
        num_classes = DATASETS[network.data].num_classes
        try:
            trainer = Trainer(model, images, recipe, num_classes=num_classes, seed=0, mask=mask)
        except ValueError:  # the engine does not apply
            continue
        model.train()
        steps[f"{engine} {density:g}"] = trainer.one_step
    yield _points(name, "training step", network.batch, densities, interleaved(steps, rounds))
    passes: dict[str, Callable[[], object]] = {}
    for engine, density in [("torch", densities[-1]), *(("blocked", density) for density in densities)]:
        model, mask = _masked(spec, network.data, density)
        judged = blocked_evaluation(model.eval(), mask) if engine == "blocked" else model.eval()
        if engine == "torch" or judged is not model:
            passes[f"{engine} {density:g}"] = partial(evaluate, judged, images)
    yield _points(name, "evaluation", network.batch, densities, interleaved(passes, rounds))


def _points(
    name: str, work: str, batch: int, densities: Sequence[float], seconds: dict[str, float]
) -> list[EnginePoint]:
    ms = {call: 1e3 * each for call, each in seconds.items()}
    dense = ms[f"torch {densities[-1]:g}"]
    return [EnginePoint(name, work, batch, density, dense, ms.get(f"blocked {density:g}")) for density in densities]


def _masked(spec: ModelSpec, data: str, density: float) -> tuple[nn.Module, dict[str, Tensor]]:
    model = make_network(spec, DataSpec(name=data), CPU)
    set_initial_weights(model, spec, seed=0)
    generator = torch.Generator().manual_seed(0)
    parameters = dict(model.named_parameters())
    first = parameters[prunable(model, spec)[0]].dim() == 4  # a convolution of the image's few channels
    inner = prunable(model, spec)[first:-1]
    mask = {name: torch.rand(parameters[name].shape, generator=generator) < density for name in inner}
    apply_mask(model, mask)
    return model, mask


# Convolutions of the networks above: channels, side of the plane, kernel, stride, images.
LAYERS = (
    (16, 32, 3, 1, 64),
    (32, 16, 3, 1, 64),
    (64, 8, 3, 1, 64),
    (256, 4, 3, 1, 32),
    (512, 4, 3, 1, 32),
    (512, 2, 3, 1, 32),
    (64, 8, 3, 2, 64),
    (64, 8, 1, 1, 64),
)


def layer_points(densities: Sequence[float], rounds: int) -> Iterator[list[EnginePoint]]:
    """Time convolutions, forward with both gradients, over the kept weights: what the thresholds of `policy` rest on.

    3x3 filters of stride 1 are timed dense by Winograd's filtering too, as a list of one point.
    """
    generator = torch.Generator().manual_seed(0)
    for channels, side, kernel, stride, batch in LAYERS:
        x = torch.randn(batch, channels, side, side, generator=generator).to(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, kernel, kernel, generator=generator)
        leaf = weight.to(memory_format=torch.channels_last).requires_grad_()
        planes = x.clone().requires_grad_()
        dense = partial(torch.conv2d, stride=stride, padding=kernel // 2)
        calls: dict[str, Callable[[], object]] = {"torch": partial(_forward_and_gradients, dense, planes, leaf)}
        blocks = to_blocks(x).requires_grad_()
        for density in densities:
            mask = torch.rand(weight.shape, generator=generator) < density
            sparse = _of_blocks(MaskedConvolution(SparsityPattern.of(mask), kernel, stride, kernel // 2))
            calls[f"{density:g}"] = partial(_forward_and_gradients, sparse, blocks, weight.clone().requires_grad_())
        if (kernel, stride) == (3, 1):
            winograd = _of_blocks(MaskedConvolution(None))
            calls["winograd"] = partial(_forward_and_gradients, winograd, blocks, weight.clone().requires_grad_())
        ms = {name: 1e3 * seconds for name, seconds in interleaved(calls, rounds).items()}
        name = f"{kernel}x{kernel}, {channels} channels, {side} pixels, stride {stride}"
        work, torch_ms = "forward and gradients", ms["torch"]
        yield [EnginePoint(name, work, batch, density, torch_ms, ms[f"{density:g}"]) for density in densities]
        if "winograd" in ms:
            yield [EnginePoint(f"{name}, by Winograd", work, batch, 1.0, torch_ms, ms["winograd"])]


def _of_blocks(convolution: MaskedConvolution) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, weight: convolution(Activations(x), weight)[0]


def _forward_and_gradients(layer: Callable[..., Tensor], x: Tensor, weight: Tensor) -> None:
    y = layer(x, weight)
    torch.autograd.grad(y, (x, weight), torch.ones_like(y))
