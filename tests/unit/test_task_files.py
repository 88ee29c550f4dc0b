"""Weights on disk: pruned ones take a bit, and whatever is read back has the same bits."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lthbench.ops.masks import pack_mask
from lthbench.tasks.header import metadata
from lthbench.tasks.tensor_files import digest, read_mask, read_tensors, write_mask, write_tensors

# Zeros of both signs, NaN with a payload, the smallest denormal, infinity, and a plain number.
HARD = [0x00000000, 0x80000000, 0x7FC00123, 0x00000001, 0x7F800000, 0x3F800000]


def from_bits(bits: list[int]) -> torch.Tensor:
    return torch.frombuffer(bytearray(struct.pack(f"<{len(bits)}I", *bits)), dtype=torch.float32)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.view(torch.int32), b.view(torch.int32))


@settings(max_examples=30)
@given(st.lists(st.sampled_from(HARD), min_size=1, max_size=40), st.integers(0, 2000), st.randoms())
def test_every_bit_of_every_weight_comes_back(tmp_path_factory: pytest.TempPathFactory, hard, zeros, random) -> None:  # type: ignore[no-untyped-def]
    bits = hard + [0] * zeros
    random.shuffle(bits)
    path = tmp_path_factory.mktemp("bits") / "w.safetensors"
    tensors = {"conv.weight": from_bits(bits).reshape(1, -1), "counter": torch.tensor(3), "empty": torch.zeros(0, 2)}
    write_tensors(path, tensors, {"head": "fc"})
    found, note = read_tensors(path)
    assert note == {"head": "fc"} and list(found) == sorted(tensors)
    assert same_bits(found["conv.weight"], tensors["conv.weight"])
    assert torch.equal(found["counter"], tensors["counter"]) and found["empty"].shape == (0, 2)


@pytest.mark.parametrize("density", [1.0, 0.5, 0.1, 0.01])
def test_a_file_holds_the_survivors_and_a_bit_for_each_weight(tmp_path: Path, density: float) -> None:
    weights = torch.randn(64, 32, 3, 3).to(memory_format=torch.channels_last)
    weights.masked_fill_(torch.rand(weights.shape) >= density, 0.0)
    write_tensors(tmp_path / "w.safetensors", {"weight": weights})
    found, _ = read_tensors(tmp_path / "w.safetensors")
    assert digest(found) == digest({"weight": weights})
    count, survivors = weights.numel(), int((weights != 0).sum())
    expected = 4 * count if density == 1 else 4 * survivors + count / 8
    assert (tmp_path / "w.safetensors").stat().st_size == pytest.approx(expected, abs=400)


def test_the_first_weight_of_eight_has_the_highest_bit_of_a_byte_in_every_file(tmp_path: Path) -> None:
    mask = torch.zeros(2000, dtype=torch.bool)
    mask[[0, 9, 10]] = True
    write_mask(tmp_path / "mask.safetensors", {"weight": mask.view(2, 1000)})
    write_tensors(tmp_path / "weights.safetensors", {"weight": mask.float()})
    for file, name in (("mask", "weight"), ("weights", "present:weight")):
        assert load_file(tmp_path / f"{file}.safetensors")[name][:3].tolist() == [0b1000_0000, 0b0110_0000, 0]
    assert torch.equal(read_mask(tmp_path / "mask.safetensors")["weight"], mask.view(2, 1000))
    assert pack_mask(mask)[0] == 0b0110_0000_0001, "the kernels' words begin with the lowest"


def test_files_in_which_zeros_are_written_out_are_read(tmp_path: Path) -> None:
    weights = {"weight": torch.zeros(1000), "bias": torch.ones(3)}
    save_file(weights, tmp_path / "old.safetensors", metadata=metadata({"head": "fc"}, {}))
    found, note = read_tensors(tmp_path / "old.safetensors")
    assert note == {"head": "fc"} and digest(found) == digest(weights)
