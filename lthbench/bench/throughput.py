"""How fast this device trains and evaluates the networks of a suite: a few seconds each, on images of noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lthbench.bench.timing import matmul_probe
from lthbench.data.images import ImageSet
from lthbench.data.spec import spec_of_form
from lthbench.engine.linear_path import evaluate_linear_path
from lthbench.models.build import prunable
from lthbench.models.spec import ModelSpec
from lthbench.runner.environment import device_name
from lthbench.suite.calibration import Calibration, NetworkRate, Precision, TrainingRate
from lthbench.suite.schema import Pair
from lthbench.tasks.network import make_network, set_initial_weights, weights_of
from lthbench.training.loop import Trainer, evaluate
from lthbench.training.recipe import Recipe, Schedule
from lthbench.training.steps import Steps

SECONDS = 1.0  # of each measurement
POINTS = 30  # of a linear path
_FOREVER = Steps(iterations=10**9)


@dataclass(frozen=True)
class TrainingBench:
    """Where and how trainings are timed: `graphs` and `tell` are as for `Trainer`."""

    device: torch.device
    graphs: bool = True
    tell: Callable[[str], None] = lambda text: None


def calibrate(pairs: Iterable[Pair], device: torch.device, threads: int) -> Iterator[Calibration]:
    """Measure what the tasks of some pairs need; yields a calibration for each pair.

    The recipes of the arms are measured, once for every batch size, precision and augmentation.
    """
    found = Calibration(
        device=device_name(device),
        kind="cuda" if device.type == "cuda" else "cpu",
        torch=torch.__version__,
        threads=threads,
        matmul={"float32": matmul_rate("float32", device), "bfloat16": matmul_rate("bfloat16", device)},
    )
    for pair in pairs:
        measured = found.model_copy(update={"networks": (network_rate(pair.model, pair.data.form, device),)})
        kinds = {(r.precision, r.batch_size, r.augment, r.engine): r for r in reversed(pair.recipes)}
        rates = [training_rate(pair.model, pair.data.form, recipe, TrainingBench(device)) for recipe in kinds.values()]
        yield measured.model_copy(update={"trainings": tuple(rates)})


def matmul_rate(precision: Precision, device: torch.device) -> float:
    """Floating-point operations per second of matrix products: of large square ones, or of a convolution if that is
    faster, which on a CPU uses another library."""
    dtype: torch.dtype = getattr(torch, precision)
    square, operations = matmul_probe(8192 if device.type == "cuda" else 1024, dtype, device)
    images, channels, side = (512, 256, 32) if device.type == "cuda" else (8, 64, 32)
    pixels = torch.randn(images, channels, side, side, device=device).to(dtype, memory_format=torch.channels_last)
    weights = torch.randn(channels, channels, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)
    in_convolution = 2.0 * images * side**2 * channels**2 * 9
    rates = []
    for call, flops in (
        (square, operations),
        (lambda: torch.conv2d(pixels, weights, padding=1), in_convolution),
    ):
        count, seconds = _repeated(lambda call=call: (call(), 1)[1], device, SECONDS)  # type: ignore[misc]
        rates.append(flops * count / seconds)
    return max(rates)


def training_rate(
    model: ModelSpec, data: str, recipe: Recipe, bench: TrainingBench, seconds: float | None = None
) -> TrainingRate:
    """Time training steps of a recipe, with a mask; the batch is smaller where one would take seconds.

    Args:
        seconds: how long; None is SECONDS.
    """
    at_least = SECONDS if seconds is None else seconds
    batch = min(recipe.batch_size, 4)
    step = _training_step(model, data, recipe, batch, bench)
    count, took = _repeated(step, bench.device, at_least / 10)
    wanted = min(recipe.batch_size, int(at_least / 2 * count / took))
    if wanted > batch:
        batch, step = wanted, _training_step(model, data, recipe, wanted, bench)
    if took < at_least:
        count, took = _repeated(step, bench.device, at_least)
    return TrainingRate(
        model=model,
        data=data,
        precision=recipe.precision,
        batch_size=recipe.batch_size,
        augment=recipe.augment,
        engine=recipe.engine,
        images_per_second=count / took,
        measured_batch=batch,
    )


def network_rate(model: ModelSpec, data: str, device: torch.device, seconds: float | None = None) -> NetworkRate:
    """Time the evaluation of a network, and of the networks on a linear path.

    Args:
        seconds: how long each; None is SECONDS.
    """
    at_least = SECONDS if seconds is None else seconds
    network = _network(model, data, device)
    few = noise_images(data, 8, device)
    count, took = _repeated(lambda: (evaluate(network, few), len(few))[1], device, at_least / 10)
    images = noise_images(data, min(250, max(len(few), int(at_least * count / took / 2))), device)
    count, took = _repeated(lambda: (evaluate(network, images), len(images))[1], device, at_least)
    evaluation = count / took
    # For slow networks a few of them are enough.
    points = max(2, min(POINTS, int(at_least * evaluation / len(images))))
    ends = weights_of(network), weights_of(_network(model, data, device, seed=1))
    alphas = torch.linspace(0, 1, points, dtype=torch.float64)
    batch = [(images.batch(torch.arange(len(images))), images.labels)]

    def line() -> int:
        return evaluate_linear_path(network, *ends, alphas, batch).num_images * points

    count, took = _repeated(line, device, at_least)
    return NetworkRate(model=model, data=data, evaluation=evaluation, line=count / took)


def noise_images(data: str, count: int, device: torch.device) -> ImageSet:
    """Images of noise in the form of a data set, with labels in turn."""
    info = spec_of_form(data).info
    side = (info.stored_side, info.stored_side) if info.stored_side else info.image_shape[1:]
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(256, (count, *side, 4), dtype=torch.uint8, generator=generator)
    pixels = levels[..., 0].contiguous() if info.image_shape[0] == 1 else levels.view(torch.int32)[..., 0]
    labels = torch.arange(count) % info.num_classes
    return ImageSet(pixels, labels, info.mean, info.std, side=(info.image_shape[1], info.image_shape[2])).to(device)


def _network(model: ModelSpec, data: str, device: torch.device, seed: int = 0) -> nn.Module:
    network = make_network(model, spec_of_form(data), device)
    set_initial_weights(network, model, seed)
    return network


def _training_step(model: ModelSpec, data: str, recipe: Recipe, batch: int, bench: TrainingBench) -> Callable[[], int]:
    """A call that trains one step and returns its number of images."""
    # The learning rate does not affect the time, and random labels must not make weights infinite.
    optimizer = recipe.optimizer.model_copy(update={"lr": 1e-9})
    timed = recipe.model_copy(
        update={"batch_size": batch, "optimizer": optimizer, "steps": _FOREVER, "schedule": Schedule()}
    )
    network = _network(model, data, bench.device)
    parameters = dict(network.named_parameters())
    mask: dict[str, Tensor] = {n: torch.ones_like(parameters[n], dtype=torch.bool) for n in prunable(network, model)}
    trainer = Trainer(
        network,
        noise_images(data, max(2 * batch, 64), bench.device),
        timed,
        num_classes=spec_of_form(data).info.num_classes,
        seed=0,
        mask=mask,
        anchors={n: parameters[n].detach().clone() for n in mask} if recipe.pull else None,
        graphs=bench.graphs,
        tell=bench.tell,
    )
    network.train()

    def step() -> int:
        trainer.one_step()
        return batch

    return step


def _repeated(call: Callable[[], int], device: torch.device, seconds: float) -> tuple[int, float]:
    """Repeat a call, once untimed and then for at least so many seconds; returns the sum of its counts, and the time.

    With one thread of a CPU it is processor time, which other programs do not affect.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    synchronise = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    # Synchronise with a GPU only now and then, as in training, where the host runs ahead of it.
    calls = 10 if device.type == "cuda" else 1
    call()
    synchronise()
    begun, count = clock(), 0
    while True:
        count += sum(call() for _ in range(calls))
        synchronise()
        if (passed := clock() - begun) >= seconds:
            return count, passed
