"""The cache of one parameter group: what the compiled update needs to know, gathered once.

A step goes through csrc/optimizer_cache.cpp and not through the operators masked_sgd_ and masked_adamw_, which check
and unpack their lists in every call.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from operator import is_
from typing import Any

import torch
from torch import Tensor

from lthbench.ops._fake import shape_only
from lthbench.ops._library import extension, kernels_available, optimizer_cache
from lthbench.ops.masks import in_memory_order, is_dense, laid_like, pack_mask


def supported(params: list[Tensor]) -> bool:
    """Whether the kernels can update these parameters: float32, dense in memory, on one device that has kernels."""
    return bool(params) and all(
        p.dtype == torch.float32
        and p.layout == torch.strided
        and p.device == params[0].device
        and is_dense(p)
        and kernels_available(p.device)
        for p in params
    )


class GroupCache:
    """What the kernels know of one group of a masked optimizer; it is made again when a tensor was replaced.

    Args:
        params: the group's parameters, for which `supported` holds.
        state: the optimizer's state; missing states of parameters with a gradient are created.
        state_names: the state tensors a weight has: momentum_buffer, or exp_avg and exp_avg_sq, or none.
        masks: parameter -> bool mask; they are packed.
        anchors: parameter -> initial value.
        step_on_device: whether the state's ``step`` counts on the device (capturable).

    Raises:
        RuntimeError: what the operators would refuse (torch.ops.lthbench.check_update): a state, a mask or an anchor
            whose memory layout is not its parameter's, two that share memory, or an incomplete state.
    """

    def __init__(
        self,
        params: list[Tensor],
        state: dict[Tensor, Any],
        state_names: tuple[str, ...],
        masks: Mapping[Tensor, Tensor],
        anchors: Mapping[Tensor, Tensor],
        step_on_device: bool = False,
    ) -> None:
        self.params = list(params)
        self.device = params[0].device
        self.state_names = state_names
        names = (*state_names, "", "")[:2]
        is_first_step = [_start_state(p, state, state_names) for p in self.params]
        entries = [state.get(p, {}) for p in self.params]
        # Aliases, which keep the memory of masks and anchors alive whatever becomes of the tensors.
        packed = [pack_mask(in_memory_order(masks[p], p)) if p in masks else None for p in self.params]
        begun = [laid_like(anchors[p].detach().to(p.dtype), p) if p in anchors else None for p in self.params]
        steps = [entry.get("step") if names[1] else None for entry in entries]
        first, second = ([entry.get(name) for entry in entries] for name in names)
        none = torch.empty(0)
        lists = [[none if t is None else t for t in tensors] for tensors in (first, second, packed, begun, steps)]
        if not names[1]:
            lists[1] = []
        torch.ops.lthbench.check_update(self.params, *lists, step_on_device)
        kernels = extension(self.device).masked_update
        self._native = optimizer_cache().OptimizerCache(
            kernels, self.params, entries, names, *lists, step_on_device, is_first_step
        )
        self._anchored = any(p in anchors for p in self.params)
        num_partials = self._native.num_partials if self._anchored else 0
        self._partials = torch.empty(num_partials, dtype=torch.float64, device=self.device)
        self._distance = torch.zeros((), dtype=torch.float64, device=self.device)
        self._on_device = torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()
        self._addresses = [p.data_ptr() for p in self.params]

    def describes(self, params: list[Tensor], state_names: tuple[str, ...]) -> bool:
        """Whether it was made for these very parameters and states."""
        return (
            self.state_names == state_names and len(params) == len(self.params) and all(map(is_, params, self.params))
        )

    def holds_memory(self) -> bool:
        """Whether the parameters still lie where the last step wrote them."""
        return [p.data_ptr() for p in self.params] == self._addresses

    def sgd(self, group: dict[str, Any]) -> Tensor | float | None:
        """One step of SGD; the squared distance (on CUDA a float64 tensor there), or None: make a new cache."""
        lr, place = self._place(group["lr"])
        return self._run(
            self._native.sgd, lr, group["momentum"], group["dampening"], group["weight_decay"], group["pull"],
            group["nesterov"], *place,
        )  # fmt: skip

    def adamw(self, group: dict[str, Any]) -> Tensor | float | None:
        """One step of AdamW; results as for `sgd`."""
        lr, place = self._place(group["lr"])
        return self._run(
            self._native.adamw, lr, *group["betas"], group["eps"], group["weight_decay"], group["pull"], *place
        )

    def _run(self, step: Any, *options: Any) -> Tensor | float | None:
        with self._on_device:
            distance = step(None, *options)
            if distance is None:
                # A gradient in another memory layout than its weight is copied; anything else calls for a new cache.
                distance = step([_like_weight(p) for p in self.params], *options)
        if distance is None:
            return None
        touched = self.params
        if not self._native.all_have_gradients:
            touched = [p for p in self.params if p.grad is not None]
        torch.autograd.graph.increment_version(touched)
        return distance if self.device.type == "cpu" else self._distance

    def _place(self, lr: float | Tensor) -> tuple[float, tuple[int, int, int, int]]:
        """The learning rate as a number, and for CUDA: stream, learning rate on the device, scratch, result."""
        if self.device.type == "cpu":
            return float(lr), (0, 0, 0, 0)
        stream = torch.cuda.current_stream(self.device).cuda_stream
        scratch, result = self._partials.data_ptr(), self._distance.data_ptr() if self._anchored else 0
        if isinstance(lr, Tensor) and lr.is_cuda:
            if lr.dtype != torch.float32:
                raise ValueError(f"lr is a tensor of {lr.dtype}, expected torch.float32")
            return 0.0, (stream, lr.data_ptr(), scratch, result)
        return float(lr), (stream, 0, scratch, result)


def _start_state(p: Tensor, state: dict[Tensor, Any], names: tuple[str, ...]) -> bool:
    """Create a momentum buffer where one is needed, and give every state its weight's memory layout.

    Returns whether the momentum buffer holds no value yet.
    """
    is_first_step = False
    if names == ("momentum_buffer",) and p.grad is not None and state[p].get("momentum_buffer") is None:
        state[p]["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        is_first_step = True
    for name in names if p in state else ():
        value = state[p].get(name)
        if value is not None and (value.stride() != p.stride() or value.dtype != p.dtype or value.device != p.device):
            state[p][name] = torch.empty_like(p, requires_grad=False).copy_(value)
    return is_first_step


@torch.no_grad()
def _like_weight(p: Tensor) -> Tensor | None:
    if p.grad is None or (p.grad.stride() == p.stride() and p.grad.dtype == p.dtype):
        return p.grad
    return torch.empty_like(p, requires_grad=False).copy_(p.grad.to_dense() if p.grad.is_sparse else p.grad)


@shape_only("check_update")
def _check_update_shape(
    weights: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    masks: list[Tensor],
    anchors: list[Tensor],
    steps: list[Tensor],
    steps_on_device: bool,
) -> None:
    pass
