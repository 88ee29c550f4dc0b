"""Packed masks: one bit per weight inside the kernels, bool tensors outside.

Bit i % 32 of word i / 32 is weight i in the order of memory; the bits after the last weight are 0. Files have another
order (lthbench.tasks.tensor_files).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available


def pack_mask(mask: Tensor) -> Tensor:
    """The mask, a contiguous bool tensor of any shape, as int32 words [ceil(numel / 32)]."""
    if kernels_available(mask.device):
        words: Tensor = torch.ops.lthbench.pack_mask(mask)
        return words
    bits = torch.zeros((mask.numel() + 31) // 32 * 32, dtype=torch.int64, device=mask.device)
    bits[: mask.numel()] = mask.reshape(-1)
    places = torch.arange(32, dtype=torch.int64, device=mask.device)
    return (bits.view(-1, 32) << places).sum(1).to(torch.int32)


def unpack_mask(words: Tensor, numel: int) -> Tensor:
    """The bool mask [numel] of packed words."""
    if kernels_available(words.device):
        mask: Tensor = torch.ops.lthbench.unpack_mask(words, numel)
        return mask
    places = torch.arange(32, dtype=torch.int32, device=words.device)
    return ((words.view(-1, 1) >> places) & 1).bool().view(-1)[:numel].clone()


def is_dense(t: Tensor) -> bool:
    """Whether the elements fill a contiguous range of memory without gaps or overlap, in any order."""
    if t.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(t.stride(), t.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def laid_like(t: Tensor, like: Tensor) -> Tensor:
    """The tensor, or a copy of it, whose elements lie in memory as those of `like`, a dense tensor of its shape.

    Raises:
        ValueError: it is of another shape.
    """
    if t.shape != like.shape:
        raise ValueError(f"a mask or an anchor is {tuple(t.shape)}, its parameter {tuple(like.shape)}")
    if t.stride() == like.stride():
        return t
    return torch.empty_like(like, dtype=t.dtype, requires_grad=False).copy_(t)


def in_memory_order(t: Tensor, like: Tensor) -> Tensor:
    """The elements of t as a vector, in the order in which `like`, a dense tensor of its shape, holds its own."""
    t = laid_like(t, like)
    return t.as_strided((t.numel(),), (1,), t.storage_offset())


@shape_only("pack_mask")
def _pack_mask_shape(mask: Tensor) -> Tensor:
    torch._check(mask.dtype == torch.bool, lambda: f"mask has dtype {mask.dtype}, expected torch.bool")
    return mask.new_empty((mask.numel() + 31) // 32, dtype=torch.int32)


@shape_only("unpack_mask")
def _unpack_mask_shape(words: Tensor, numel: int) -> Tensor:
    torch._check(words.dtype == torch.int32, lambda: f"words has dtype {words.dtype}, expected torch.int32")
    return words.new_empty(numel, dtype=torch.bool)
