"""Shape-only implementations of the operators, for torch.compile and meta tensors."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, library


def _register(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the operator's, behind a check that all tensors lie on one device."""

    def decorate(fake: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(fake)

        @functools.wraps(fake)
        def checked(*arguments: Any) -> Any:
            _check_devices(signature.bind(*arguments).arguments)
            return fake(*arguments)

        library.register_fake(f"lthbench::{name}")(checked)
        return checked

    return decorate


def _check_devices(arguments: Mapping[str, Any]) -> None:
    """Refuse tensors on several devices: with one meta tensor among real ones the dispatcher comes here too."""
    named: list[tuple[str, Tensor]] = []
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            named.append((name, value))
        elif isinstance(value, list):
            named += [(f"{name}[{i}]", t) for i, t in enumerate(value) if isinstance(t, Tensor)]
    first, like = named[0]
    for name, t in named:
        if t.device != like.device:
            raise RuntimeError(f"{name} lies on {t.device}, {first} on {like.device}; move one to the other")


def register() -> None:
    """Register them; the operators' schemas must be loaded."""

    @_register("pack_mask")
    def _(mask: Tensor) -> Tensor:
        torch._check(mask.dtype == torch.bool, lambda: f"mask has dtype {mask.dtype}, expected torch.bool")
        return mask.new_empty((mask.numel() + 31) // 32, dtype=torch.int32)

    @_register("unpack_mask")
    def _(words: Tensor, numel: int) -> Tensor:
        torch._check(words.dtype == torch.int32, lambda: f"words has dtype {words.dtype}, expected torch.int32")
        return words.new_empty(numel, dtype=torch.bool)

    @_register("count_survivors")
    def _(masks: list[Tensor]) -> Tensor:
        return torch.empty(len(masks), dtype=torch.int64, device=masks[0].device)

    @_register("prune_lowest")
    def _(
        scores: list[Tensor], masks: list[Tensor], groups: list[int], num_pruned: list[int], magnitude: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        torch._check(len(masks) == len(scores), lambda: f"masks has {len(masks)} tensors, scores {len(scores)}")
        num_words = sum((s.numel() + 31) // 32 for s in scores)
        return (
            masks[0].new_empty(num_words, dtype=torch.int32),
            torch.empty(len(num_pruned), dtype=torch.float32, device=scores[0].device),
            torch.empty(len(scores), 2, dtype=torch.int64, device=scores[0].device),
        )

    @_register("probe_read")
    def _(words: Tensor) -> Tensor:
        return words.new_empty((), dtype=torch.int64)

    @_register("probe_fma")
    def _(start: Tensor, rounds: int) -> Tensor:
        return start.new_empty(2, dtype=torch.float64)

    @_register("probe_update_")
    def _(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> None:
        pass

    @_register("masked_sgd_")
    def _(
        weights: list[Tensor],
        grads: list[Tensor],
        momenta: list[Tensor],
        masks: list[Tensor],
        anchors: list[Tensor],
        *rates: float,
    ) -> Tensor:
        torch._check(len(grads) == len(weights), lambda: f"grads has {len(grads)} tensors, weights {len(weights)}")
        return torch.empty((), dtype=torch.float64, device=weights[0].device)

    @_register("masked_adamw_")
    def _(
        weights: list[Tensor],
        grads: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        masks: list[Tensor],
        anchors: list[Tensor],
        *rates: float,
    ) -> Tensor:
        torch._check(len(grads) == len(weights), lambda: f"grads has {len(grads)} tensors, weights {len(weights)}")
        return torch.empty((), dtype=torch.float64, device=weights[0].device)

    @_register("check_update")
    def _(
        weights: list[Tensor],
        first: list[Tensor],
        second: list[Tensor],
        masks: list[Tensor],
        anchors: list[Tensor],
        steps: list[Tensor],
        steps_on_device: bool,
    ) -> None:
        pass

    @_register("lerp_stacked_")
    def _(out: list[Tensor], a: list[Tensor], b: list[Tensor], alphas: Tensor, relu: bool) -> None:
        torch._check(len(out) == len(a), lambda: f"out has {len(out)} tensors, a {len(a)}")

    @_register("lerp_linear")
    def _(a: Tensor, b: Tensor, alphas: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        torch._check(weight.dim() == 3, lambda: f"weight has shape {tuple(weight.shape)}, expected [K, H, N]")
        return a.new_empty(alphas.shape[0], a.shape[0], weight.shape[2])

    @_register("count_errors")
    def _(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        torch._check(logits.dim() == 3, lambda: f"logits has shape {tuple(logits.shape)}, expected [K, B, C]")
        num_networks = logits.shape[0]
        loss_sum = logits.new_empty(num_networks, dtype=torch.float64)
        return loss_sum, logits.new_empty(num_networks, dtype=torch.int64)

    @_register("sparse_convolution")
    def _(
        input: Tensor,
        values: Tensor,
        col_indices: Tensor,
        row_ptr: Tensor,
        bias: Tensor,
        other: Tensor | None,
        kernel: int,
        stride: int,
        padding: int,
        relu: bool,
    ) -> Tensor:
        torch._check(input.dim() == 5, lambda: f"input has {input.dim()} dimensions, expected 5")
        height, width = ((size - 2 + 2 * padding - kernel) // stride + 3 for size in input.shape[2:4])
        return input.new_empty(input.shape[0], bias.shape[0], height, width, input.shape[4])

    @_register("winograd_convolution")
    def _(input: Tensor, weight: Tensor, bias: Tensor, other: Tensor | None, relu: bool) -> Tensor:
        torch._check(input.dim() == 5, lambda: f"input has {input.dim()} dimensions, expected 5")
        return input.new_empty(input.shape[0], bias.shape[0], *input.shape[2:])
