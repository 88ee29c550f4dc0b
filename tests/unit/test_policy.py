"""Which kernels a network gets follows from its shapes, its mask and the environment, in one file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lthbench.engine
from lthbench.engine import policy
from lthbench.engine.policy import choose_kernel, choose_path_engine

NARROW, WIDE = 64, policy.WINOGRAD_CHANNELS + 1


@pytest.fixture(autouse=True)
def avx512_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "has_avx512", lambda: True)
    monkeypatch.setattr(policy, "kernels_available", lambda device: True)


def networks(channels: int, device: str = "cpu", bytes_each: int = 1 << 20, fits: bool = True) -> Any:
    weight = torch.empty(channels, 3, 3, 3, device="meta")
    return SimpleNamespace(names=["w"], a=[weight], device=torch.device(device), bytes_each=bytes_each, fits=fits)


def traced(stays_in_blocks: bool = True) -> Any:
    return lambda blocked: SimpleNamespace(stays_in_blocks=stays_in_blocks, has_convolution=True)


def mask_of(channels: int, density: float) -> dict[str, Tensor]:
    mask = torch.zeros(channels * 27, dtype=torch.bool)
    mask[: int(density * mask.numel())] = True
    return {"w": mask.view(channels, 3, 3, 3)}


def method(*args: Any) -> str:
    return choose_path_engine(*args).method


def test_a_narrow_network_that_stays_in_blocks_is_blocked() -> None:
    assert method(networks(NARROW), {}, traced()) == "blocked"
    assert method(networks(NARROW), {}, traced(stays_in_blocks=False)) == "fused"
    assert method(networks(NARROW, fits=False), {}, traced()) == "fused"


@pytest.mark.parametrize(("density", "expected"), [(0.3, "blocked"), (0.4, "fused")])
def test_a_wide_network_is_blocked_below_the_measured_density(density: float, expected: str) -> None:
    assert method(networks(WIDE), mask_of(WIDE, density), traced(stays_in_blocks=False)) == expected


@pytest.mark.parametrize("missing", ["has_avx512", "kernels_available"])
def test_no_network_is_blocked_trained_blocked_or_kernels(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, missing, lambda *_: False)
    assert method(networks(NARROW), mask_of(NARROW, 0.1), traced()) == "fused"


def test_what_the_blocked_engine_trained_is_blocked_trained_blocked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "has_avx512", lambda: False)
    chosen = [choose_path_engine(networks(NARROW), {}, traced(), trained_blocked=allowed) for allowed in (False, True)]
    assert [engine.method for engine in chosen] == ["fused", "blocked"]


@pytest.mark.parametrize(
    ("channels", "density", "by_avx2", "by_avx512"),
    [
        (NARROW, 1.0, True, True),
        (256, 1.0, True, False),
        (WIDE, 0.5, False, False),
        (WIDE, 0.3, True, False),
        (WIDE, 0.2, True, True),
    ],
)
@pytest.mark.parametrize("avx512", [False, True])
def test_a_wide_dense_convolution_of_a_training_is_torchs(
    channels: int, density: float, by_avx2: bool, by_avx512: bool, avx512: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "has_avx512", lambda: avx512)
    blocked = by_avx512 if avx512 else by_avx2
    layer = nn.Conv2d(3, channels, 3, 1, 1, bias=False, device="meta")
    assert policy.trains_blocked(layer, mask_of(channels, density)["w"]) == blocked


def test_small_networks_are_stacked_on_a_gpu_and_large_ones_are_not() -> None:
    assert method(networks(NARROW, "cuda"), mask_of(NARROW, 0.1), traced()) == "stacked"
    assert method(networks(NARROW, "cuda", bytes_each=policy.FILLS_A_GPU + 1), {}, traced()) == "fused"
    assert method(networks(NARROW, "cuda", fits=False), {}, traced()) == "fused"


def test_what_cannot_be_traced_is_evaluated_as_it_is() -> None:
    assert method(networks(NARROW), {}, lambda blocked: None) == "each"


@pytest.mark.parametrize(
    ("channels", "density", "stride", "kernel"),
    [
        (NARROW, 0.3, 1, "winograd"),
        (NARROW, 0.2, 1, "sparse"),
        (NARROW, 0.3, 2, "sparse"),
        (WIDE, 1.0, 1, "sparse"),
    ],
)
def test_a_blocked_convolution_is_winograds_where_dense_narrow_and_of_stride_one(
    channels: int, density: float, stride: int, kernel: str
) -> None:
    layer = nn.Conv2d(3, channels, 3, stride, 1, device="meta")
    assert choose_kernel(layer, mask_of(channels, density)["w"], blocked=True) == kernel


@pytest.mark.parametrize(("avx512", "kernel"), [(False, "winograd"), (True, "sparse")])
def test_wider_vectors_make_kept_weights_the_faster_ones_in_trainings_of_higher_density(
    avx512: bool, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "has_avx512", lambda: avx512)
    layer, mask = nn.Conv2d(3, NARROW, 3, 1, 1, device="meta"), mask_of(NARROW, 0.35)["w"]
    assert choose_kernel(layer, mask, blocked=True, trained=True) == kernel
    assert choose_kernel(layer, mask, blocked=True) == "winograd"


def test_no_other_file_of_the_engine_asks_for_the_environment() -> None:
    questions = ("has_avx512", "cpuinfo", "kernels_available", "torch.backends", "get_num_threads")
    files = sorted(Path(lthbench.engine.__file__).parent.glob("*.py"))
    asking = {file.name for file in files if any(question in file.read_text() for question in questions)}
    assert asking == {"policy.py"}
