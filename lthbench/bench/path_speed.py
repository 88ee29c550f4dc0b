"""Benchmark of linear paths: K networks evaluated by ours and in the usual way, one state dict after another."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lthbench.bench.timing import Work, arithmetic_limit
from lthbench.engine.linear_path import Batch, LinearPathResult, evaluate_linear_path
from lthbench.models.build import build
from lthbench.models.spec import ModelSpec

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


def linear_path_work(name: str, density: float = 1.0, *, num_images: int, num_points: int, device: str = "cpu") -> Work:
    """K networks between two random ones of a model, with the current number of threads.

    The limit is the time of the floating-point operations of K dense networks at the peak of the processor, or at the
    rate of a matrix product; shared and pruned work can beat it.
    """
    shape = (1, 28, 28) if name.startswith("lenet") else (3, 32, 32)
    model = build(ModelSpec(name=name), shape, 10)
    a, b, mask = ({key: t.to(device) for key, t in state.items()} for state in make_ends(model, density))
    model.to(device)
    images = torch.randn(num_images, *shape).to(device)
    labels = torch.randint(2, (num_images,)).to(device)
    alphas = torch.linspace(0, 1, num_points).tolist()
    small = list(zip(images.split(128), labels.split(128), strict=True))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(images[:1])

    def ours() -> LinearPathResult:
        return evaluate_linear_path(model, a, b, alphas, [(images, labels)], mask=mask)

    def usual() -> LinearPathResult:
        return one_by_one(model, a, b, alphas, small)

    return Work(
        f"path of {num_points} networks, {name}, density {density:g}",
        {"ours": ours},
        {"one by one": usual},
        arithmetic_limit(float(counter.get_total_flops()) * num_images * num_points, device),
        check=lambda: torch.testing.assert_close(ours().loss, usual().loss, rtol=1e-5, atol=1e-5),
    )
