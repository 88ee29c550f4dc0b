"""Evaluating K networks on a line: ours against a new state dict for each, NCHW, eager.

The limit beside each is the time a float32 matrix product would take for the floating-point operations of K dense
networks. With one thread processor time is compared, which other programs on the machine disturb less.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.models.build import build, prunable
from lthbench.models.spec import ModelSpec
from lthbench.ops.bench import matmul_probe, threads
from lthbench.ops.line import evaluate_line

State = dict[str, Tensor]
# model, image shape, images, points, density of both ends
CASES = [
    ("resnet8", (3, 32, 32), 128, 30, 1.0),
    ("resnet20", (3, 32, 32), 128, 30, 1.0),
    ("conv-2", (3, 32, 32), 128, 10, 1.0),
    ("lenet-300-100", (1, 28, 28), 2000, 30, 1.0),
    ("resnet8", (3, 32, 32), 128, 30, 0.2),
    ("resnet20", (3, 32, 32), 128, 30, 0.2),
    ("resnet20", (3, 32, 32), 128, 30, 0.05),
]


def make_ends(name: str, shape: tuple[int, int, int], density: float) -> tuple[nn.Module, State, State]:
    """A model and two states under one random mask."""
    torch.manual_seed(0)
    model = build(ModelSpec(name=name), shape, 10)
    states = []
    for _ in range(2):
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        states.append(copy.deepcopy(model.state_dict()))
    for weight in prunable(model)[1:-1]:
        mask = torch.rand(states[0][weight].shape) < density
        for state in states:
            state[weight] *= mask
    return model.eval(), states[0], states[1]


@torch.no_grad()
def naive(
    model: nn.Module, a: State, b: State, alphas: list[float], batches: list[tuple[Tensor, Tensor]]
) -> list[float]:
    """The mean loss of every network, one network after another."""
    losses = []
    for alpha in alphas:
        mixed = {n: (1 - alpha) * a[n] + alpha * b[n] if a[n].is_floating_point() else a[n] for n in a}
        model.load_state_dict(mixed)
        loss = errors = num_images = 0.0
        for images, labels in batches:
            logits = model(images)
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            errors += (logits.argmax(1) != labels).sum().item()
            num_images += len(labels)
        losses.append(loss / num_images)
    return losses


def flops(model: nn.Module, image: Tensor) -> float:
    """Floating-point operations of one dense forward pass of one image, those of convolutions and products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return float(counter.get_total_flops())


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name, shape, num_images, num_points, density", CASES)
def test_a_line_of_networks(benchmark, capsys, name, shape, num_images, num_points, density, num_threads):
    if not benchmark.enabled:  # only that both give the same losses
        num_images, num_points = 16, 2
    model, a, b = make_ends(name, shape, density)
    images, labels = torch.randn(num_images, *shape), torch.randint(10, (num_images,))
    alphas = torch.linspace(0, 1, num_points).tolist()
    small = list(zip(images.split(128), labels.split(128), strict=True))
    work = num_points * num_images * flops(model, images[:1])
    probe, probe_flops = matmul_probe()
    clock: Callable[[], float] = time.process_time if num_threads == 1 else time.perf_counter
    calls = {
        "naive": lambda: naive(model, a, b, alphas, small),
        "ours": lambda: evaluate_line(model, a, b, alphas, [(images, labels)]),
        "probe": probe,
    }
    rounds = 3 if benchmark.enabled else 1
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with threads(num_threads):
        for _ in range(rounds):
            for call in calls:
                start = clock()
                result = calls[call]()
                seconds[call].append(clock() - start)
                if call == "naive":
                    expected = torch.tensor(result, dtype=torch.float64)
                elif call == "ours":
                    torch.testing.assert_close(result.loss, expected, rtol=1e-5, atol=1e-5)
        benchmark.pedantic(calls["ours"], rounds=1, iterations=1)
    median = {call: sorted(times)[len(times) // 2] for call, times in seconds.items()}
    limit = work * median["probe"] / probe_flops
    ratio, fraction = median["naive"] / median["ours"], limit / median["ours"]
    benchmark.extra_info.update(ratio=ratio, of_matmul_rate=fraction, threads=num_threads)
    if not benchmark.enabled:
        return
    with capsys.disabled():
        print(
            f"\n{name} density {density}, K = {num_points}, {num_threads} threads: ours {median['ours'] * 1e3:.0f} ms, "
            f"{ratio:.2f}x of naive, {fraction:.2f} of the matrix product's rate"
        )
