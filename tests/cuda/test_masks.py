"""Masks on a GPU, where nothing waits to refuse bits after the last weight: kernels pass over them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lthbench.ops.masks import pack_mask

N = 40  # weights, of which the second word of a mask holds 8


def results(words: Tensor) -> dict[str, Any]:
    """What each operator that knows how many weights a mask has makes of it."""
    ops, device = torch.ops.lthbench, torch.device("cuda")

    def numbers(begin: float) -> Tensor:
        return torch.arange(begin, begin + N, device=device) / N

    found: dict[str, Any] = {"unpacked": ops.unpack_mask(words, N).cpu()}
    found["pruned"] = [
        part.cpu() if isinstance(part, Tensor) else part
        for parts in ops.prune_lowest([numbers(-20)], [words], [0], [9], True)
        for part in (parts if isinstance(parts, list) else [parts])
    ]
    rest = ([words], [numbers(3)], 0.1)
    sgd, adamw = [[numbers(1)] for _ in range(3)], [[numbers(1)] for _ in range(4)]
    found["sgd"] = ops.masked_sgd_(*sgd, *rest, 0.9, 0.0, 0.1, 0.1, False, False)
    found["adamw"] = ops.masked_adamw_(*adamw, *rest, 0.9, 0.99, 1e-8, 0.1, 0.1, 1)
    found |= {f"{name} {i}": t.cpu() for name, ts in (("s", sgd), ("a", adamw)) for i, (t,) in enumerate(ts)}
    return found


@pytest.mark.fake_cuda("sim")
def test_bits_after_the_last_weight_have_no_effect() -> None:
    words = pack_mask(torch.arange(N) % 3 > 0)
    dirty = words | torch.tensor([0, -256], dtype=torch.int32)
    right = results(words.cuda())
    assert 0 < int(right["unpacked"].sum()) < N
    torch.testing.assert_close(results(dirty.cuda()), right, rtol=0, atol=0)
