"""What the masked optimizers and the operators require of numbers and memory, in every implementation.

The kernels check the same for themselves, for the operators and the optimizer cache alike: lists of tensors in
csrc/masked_update_checks.h, the numbers of every step in csrc/masked_update.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lthbench.ops.masks import is_dense

_LARGEST = torch.finfo(torch.float32).max


def check_rates(group: Mapping[str, Any]) -> None:
    """Refuse rates of a parameter group with which a step is not defined.

    Raises:
        ValueError: a rate is NaN, infinite or negative, a beta not below 1, dampening not in 0 .. 1, or Nesterov's
            momentum without momentum or with dampening. A learning rate on a GPU is not read.
    """
    for name in ("lr", "momentum", "weight_decay", "eps", "pull"):
        value = group.get(name, 0.0)
        if isinstance(value, Tensor) and value.device.type != "cpu":
            continue
        if not 0 <= float(value) <= _LARGEST:
            raise ValueError(f"{name} is {float(value)}, expected a float32 number of 0 or more")
    for i, beta in enumerate(group.get("betas", ())):
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{i}] is {beta}, expected 0 or more, and less than 1")
    dampening = group.get("dampening", 0.0)
    if not 0 <= dampening <= 1:
        raise ValueError(f"dampening is {dampening}, expected 0 to 1")
    if group.get("nesterov") and (not group["momentum"] or dampening):
        raise ValueError("nesterov needs a momentum above 0 and zero dampening")


def check_apart(params: Iterable[Tensor], anchors: Mapping[Tensor, Tensor]) -> None:
    """Refuse parameters and anchors that share memory with a parameter: one's step would change the other.

    Raises:
        ValueError: two parameters, or a parameter and an anchor, overlap in memory.
    """
    written = list(params)
    spans = [_Span(p, f"params[{i}]", True) for i, p in enumerate(written)]
    places = {p: i for i, p in enumerate(written)}
    spans += [_Span(a, f"the anchor of params[{places[p]}]", False) for p, a in anchors.items()]
    last: _Span | None = None
    last_written: _Span | None = None
    for span in sorted((s for s in spans if s.begin < s.end), key=lambda s: s.begin):
        before = last if span.written else last_written
        if before is not None and span.begin < before.end:
            raise ValueError(f"{before.name} and {span.name} share memory; give one of them a copy (clone)")
        if last is None or last.end < span.end:
            last = span
        if span.written and (last_written is None or last_written.end < span.end):
            last_written = span


def check_no_gradient(**tensors: Tensor | None) -> None:
    """Refuse tensors that require a gradient: the kernels record none, so it would silently be missing.

    Raises:
        ValueError: gradients are recorded, and a tensor requires one.
    """
    if not torch.is_grad_enabled():
        return
    for name, t in tensors.items():
        if t is not None and t.requires_grad:
            raise ValueError(f"{name} requires a gradient, which is not computed; detach it or use torch.no_grad()")


class _Span:
    """The memory of a dense tensor; empty for others, whose elements may be interleaved with a third tensor's."""

    def __init__(self, t: Tensor, name: str, written: bool) -> None:
        self.name, self.written = name, written
        self.begin = self.end = 0
        if t.layout == torch.strided and t.device.type != "meta" and is_dense(t):
            self.begin = t.data_ptr()
            self.end = self.begin + t.numel() * t.element_size()
