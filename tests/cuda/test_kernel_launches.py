"""How many launches, copies and waits an operator on lists of tensors makes, whatever the length of the lists."""

from __future__ import annotations

import pytest
import torch

from lthbench.bench.optimizer_speed import parameter_shapes

NETWORKS = ["resnet20", "resnet18", "resnet50", "swin_t", "vit_b_16"]


def on_device(name: str, prunable: bool) -> list[torch.Tensor]:
    shapes = [s for s in parameter_shapes(name) if len(s) > 1 or not prunable]
    return [torch.empty(s, device="cuda") for s in shapes]


def words_of(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.empty(-(-t.numel() // 32), dtype=torch.int32, device="cuda") for t in tensors]


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("layerwise", [False, True])
def test_a_network_is_pruned_in_four_launches_without_an_upload(network: str, layerwise: bool) -> None:
    import fake_cuda

    weights = on_device(network, prunable=True)
    words = words_of(weights)
    groups = list(range(len(weights))) if layerwise else [0] * len(weights)
    counts = [1] * (max(groups) + 1)
    # No kernel writes the status here: zeroed memory says that the thresholds were found.
    with fake_cuda.counted() as counted:
        torch.ops.lthbench.prune_lowest(weights, words, groups, counts, True)
    assert (counted.launches, counted.memsets, counted.to_device) == (4, 0, 0)
    assert (counted.to_host, counted.syncs) == (1, 1)  # whether the threshold was found


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("network", NETWORKS)
def test_the_survivors_of_a_network_are_counted_in_one_launch(network: str) -> None:
    import fake_cuda

    words = words_of(on_device(network, prunable=True))
    with fake_cuda.counted() as counted:
        torch.ops.lthbench.count_survivors(words)
    assert (counted.launches, counted.memsets, counted.to_device, counted.syncs) == (1, 1, 0, 0)


@pytest.mark.fake_cuda("guard")
@pytest.mark.parametrize("network", NETWORKS)
def test_a_networks_update_is_one_launch_and_one_for_the_distance(network: str) -> None:
    import fake_cuda

    weights = on_device(network, prunable=False)
    grads, momenta, anchors = ([torch.empty_like(w) for w in weights] for _ in range(3))
    with fake_cuda.counted() as counted:
        torch.ops.lthbench.masked_sgd_(
            weights, grads, momenta, words_of(weights), anchors, 0.1, 0.9, 0.0, 1e-4, 0.1, False, False
        )
    assert (counted.launches, counted.memsets, counted.to_device, counted.syncs) == (2, 0, 0, 0)
