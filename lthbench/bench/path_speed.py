"""Benchmark of linear paths: K networks evaluated by ours and in the usual way, one state dict after another."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lthbench.bench.timing import BenchRow, arithmetic_probe
from lthbench.engine.linear_path import Batch, LinearPathResult, evaluate_linear_path

State = dict[str, Tensor]


def make_ends(model: nn.Module, density: float) -> tuple[State, State, State]:
    """Two random states of a model, and their random mask on all weights but those of the first and last layer."""
    torch.manual_seed(0)
    states = []
    for _ in range(2):
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        states.append(copy.deepcopy(model.state_dict()))
    weights = [name for name, t in states[0].items() if t.dim() > 1]
    mask = {name: torch.rand(states[0][name].shape) < density for name in weights[1:-1]}
    for state in states:
        for name, kept in mask.items():
            state[name] *= kept
    return states[0], states[1], mask


@torch.no_grad()
def one_by_one(model: nn.Module, a: State, b: State, alphas: list[float], batches: list[Batch]) -> LinearPathResult:
    """The usual evaluation, changing the model: a new state dict for each point, NCHW, eager, sums read per batch."""
    model.eval()
    losses, error_rates = [], []
    for alpha in alphas:
        mixed = {n: (1 - alpha) * a[n] + alpha * b[n] if a[n].is_floating_point() else a[n] for n in a}
        model.load_state_dict(mixed)
        loss = errors = 0.0
        for images, labels in batches:
            logits = model(images)
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            errors += (logits.argmax(1) != labels).sum().item()
        num_images = sum(len(labels) for _, labels in batches)
        losses.append(loss / num_images)
        error_rates.append(errors / num_images)
    return LinearPathResult(torch.tensor(losses).double(), torch.tensor(error_rates).double(), num_images)


def linear_path_row(
    work: str,
    model: nn.Module,
    image_shape: tuple[int, ...],
    *,
    num_images: int,
    num_points: int,
    density: float = 1.0,
    rounds: int = 3,
    device: str = "cpu",
) -> BenchRow:
    """The table line of one model with the current number of threads; its weights are changed.

    The limit is the time that the floating-point operations of K dense networks take at the peak of the
    processor, or at the rate of a matrix product; shared and pruned work can beat it. On the CPU with one thread
    processor time is measured, which other programs disturb less.

    Raises:
        AssertionError: the losses disagree by more than 1e-5.
    """
    a, b, mask = ({name: t.to(device) for name, t in state.items()} for state in make_ends(model, density))
    model.to(device)
    images = torch.randn(num_images, *image_shape).to(device)
    labels = torch.randint(2, (num_images,)).to(device)
    alphas = torch.linspace(0, 1, num_points).tolist()
    small = list(zip(images.split(128), labels.split(128), strict=True))
    limit_name, probe, probe_operations = arithmetic_probe(device)
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    calls: dict[str, Callable[[], LinearPathResult | Tensor]] = {
        "one by one": lambda: one_by_one(model, a, b, alphas, small),
        "ours": lambda: evaluate_linear_path(model, a, b, alphas, [(images, labels)], mask=mask),
        limit_name: probe,
    }
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(images[:1])
    operations = float(counter.get_total_flops()) * num_images * num_points
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, LinearPathResult | Tensor] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            results[name] = call()
            if device != "cpu":
                torch.cuda.synchronize(device)
            seconds[name].append(clock() - start)
    ours, usual = results["ours"], results["one by one"]
    assert isinstance(ours, LinearPathResult) and isinstance(usual, LinearPathResult)
    torch.testing.assert_close(ours.loss, usual.loss, rtol=1e-5, atol=1e-5)
    ms = {name: statistics.median(times) * 1e3 for name, times in seconds.items()}
    limit = ms[limit_name] * operations / probe_operations
    return BenchRow(
        work, torch.get_num_threads(), ms["ours"], "one by one", ms["one by one"], ms["one by one"] / ms["ours"],
        limit_name, limit, limit / ms["ours"],
    )  # fmt: skip
