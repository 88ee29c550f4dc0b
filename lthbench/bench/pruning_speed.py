"""Benchmark of the global magnitude threshold: the masks of the next level, from weights and masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lthbench.bench.optimizer_speed import WARM_REPEATS, parameter_shapes
from lthbench.bench.timing import Work, read_probe
from lthbench.ops.masks import pack_mask
from lthbench.ops.pruning import prune_lowest

FRACTION = 0.2
KINDS = ("normal", "all ties", "mostly zeros", "some zeros", "grid", "denormals", "nan and inf", "same leading bits")


@dataclass(frozen=True)
class Layer:
    """The prunable weights of a network and their masks."""

    weights: list[Tensor]
    masks: list[Tensor]
    num_pruned: int


def make_layers(network: str, density: float = 1.0, kind: str = "normal") -> Layer:
    """Weights of one distribution in the shapes of a network."""
    torch.manual_seed(0)
    weights = [_scores(kind, torch.Size(s)) for s in parameter_shapes(network) if len(s) > 1]
    masks = [torch.rand(w.shape) < density for w in weights]
    return Layer(weights, masks, int(FRACTION * sum(int(m.sum()) for m in masks)))


def _scores(kind: str, shape: torch.Size) -> Tensor:
    x = 0.05 * torch.randn(shape)
    if kind == "all ties":
        return torch.full(shape, 0.05).copysign(x)
    if kind in ("mostly zeros", "some zeros"):
        return x.masked_fill_(torch.rand(shape) < (0.9 if kind == "mostly zeros" else 0.1), 0.0)
    if kind == "grid":
        return (x * 400).round() / 400
    if kind == "denormals":
        return x * 1e-38
    if kind == "nan and inf":
        return x.masked_fill_(torch.rand(shape) < 0.05, math.nan).masked_fill_(torch.rand(shape) < 0.05, math.inf)
    if kind == "same leading bits":
        return 1.0 + 1e-5 * x.abs()
    return x


def ours_packed(layer: Layer) -> Callable[[], object]:
    """The operator on packed masks, as it runs inside the package."""
    words = [pack_mask(m) for m in layer.masks]
    groups = [0] * len(words)
    return lambda: torch.ops.lthbench.prune_lowest(layer.weights, words, groups, [layer.num_pruned], True)


def _survivors(layer: Layer) -> Tensor:
    return torch.cat([w[m] for w, m in zip(layer.weights, layer.masks, strict=True)]).abs_()


def _above(layer: Layer, threshold: float) -> list[Tensor]:
    return [m & (w.abs() > threshold) for w, m in zip(layer.weights, layer.masks, strict=True)]


def baselines(layer: Layer) -> dict[str, Callable[[], list[Tensor]]]:
    """The usual ways to a global threshold; each gathers the survivors, selects, and writes new masks."""
    k = layer.num_pruned

    def numpy_survivors() -> np.ndarray:
        return _survivors(layer).numpy()

    return {
        "kthvalue": lambda: _above(layer, float(_survivors(layer).kthvalue(k).values)),
        "topk": lambda: _above(layer, float(_survivors(layer).topk(k, largest=False, sorted=False).values.max())),
        "sort": lambda: _above(layer, float(_survivors(layer).sort().values[k - 1])),
        "numpy partition": lambda: _above(layer, float(np.partition(numpy_survivors(), k - 1)[k - 1])),
        "numpy sort": lambda: _above(layer, float(np.sort(numpy_survivors())[k - 1])),
    }


def threshold_work(network: str, density: float = 1.0) -> Work:
    """The next level's masks, with packed masks and with bool ones, beside one read of the weights."""
    layer = make_layers(network, density)

    def check() -> None:
        expected = prune_lowest(layer.weights, layer.masks, layer.num_pruned).masks
        for name, call in baselines(layer).items():
            assert all(map(torch.equal, call(), expected)), name

    num_weights = sum(w.numel() for w in layer.weights)
    return Work(
        f"threshold and masks, {network}, density {density:g}",
        {
            "ours": ours_packed(layer),
            "ours, bool masks": lambda: prune_lowest(layer.weights, layer.masks, layer.num_pruned),
        },
        baselines(layer),
        {"limit: one read": read_probe(num_weights)},
        4.0 * num_weights,
        WARM_REPEATS if network == "resnet20" else 1,
        only_best=True,
        check=check,
    )


def hard_inputs_work(network: str) -> Work:
    """Ours on weights that are hard to rank; the baseline is ours on normal weights: below 1 is what they cost more."""
    calls = {kind: ours_packed(make_layers(network, kind=kind)) for kind in KINDS}
    normal = {"normal": calls.pop("normal")}
    return Work(f"threshold, {network}", calls, normal, repeats=WARM_REPEATS if network == "resnet20" else 1)
