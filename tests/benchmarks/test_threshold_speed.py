"""The next level's masks against the usual selections, beside one read of the weights (pytest --benchmark-enable)."""

from __future__ import annotations

import pytest
import torch

from lthbench.bench.pruning_speed import adversarial_rows, baselines, make_layers, ours_packed, threshold_rows
from lthbench.bench.timing import table, threads
from lthbench.ops.pruning import prune_lowest


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("density", [1.0, 0.2])
@pytest.mark.parametrize("network", ["resnet20", "resnet18", "resnet50"])
def test_the_next_masks(network, density, num_threads, benchmark, capsys):
    if not benchmark.enabled and network != "resnet20":
        pytest.skip("a large network; --benchmark-enable measures it")
    with threads(num_threads):
        rows = threshold_rows(network, density, rounds=5 if benchmark.enabled else 1)
        benchmark.extra_info["rows"] = [r._asdict() for r in rows]
        benchmark.pedantic(ours_packed(make_layers(network, density)), rounds=5, warmup_rounds=1)
    with capsys.disabled():
        print("\n" + table(rows))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_adversarial_weights(num_threads, benchmark, capsys):
    network = "resnet18" if benchmark.enabled else "resnet20"
    with threads(num_threads):
        rows = adversarial_rows(network, rounds=15 if benchmark.enabled else 1)
        benchmark.extra_info["rows"] = [r._asdict() for r in rows]
        benchmark.pedantic(ours_packed(make_layers(network, kind="all ties")), rounds=5, warmup_rounds=1)
    with capsys.disabled():
        print("\n" + table(rows))


def test_the_baselines_do_the_same_work():
    layer = make_layers("resnet20", density=0.5)
    expected = prune_lowest(layer.weights, layer.masks, layer.num_pruned).masks
    for name, call in baselines(layer).items():
        assert all(map(torch.equal, call(), expected)), name
