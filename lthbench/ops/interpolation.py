"""The operators of batched interpolation evaluation, each with its plain PyTorch reference.

Networks a and b and K points alpha_1 .. alpha_K of the linear path between them; a weight of network k is

    w_k = a + alpha_k (b - a)            for alpha_k < 1/2
    w_k = b - (1 - alpha_k) (b - a)      otherwise

in float32, no multiplication fused with an addition: exactly a at 0, exactly b at 1, exactly a wherever a = b, and the
same bits from every implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available
from lthbench.ops.contract import check_no_gradient


class Counts(NamedTuple):
    """What one batch adds to the evaluation of K networks: summed losses (float64) and wrong labels (int64)."""

    loss_sum: Tensor  # [K] float64
    num_errors: Tensor  # [K] int64


def lerp_stacked(
    a: Sequence[Tensor], b: Sequence[Tensor], alphas: Tensor, out: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Form all K interpolated networks in one pass over the two ends (equation at the head of this file).

    Args:
        a: the tensors of the end at alpha = 0, any shapes, float32.
        b: the tensors of the end at alpha = 1, same shapes and device.
        alphas: [K] float32 on the same device.
        out: buffers to write, one [K, *shape] contiguous float32 tensor each; None makes them.

    Returns:
        One [K, *shape] tensor for each tensor of a.

    Raises:
        ValueError: an argument's length, shape, dtype, device or layout is not as above, or its gradient is wanted.
    """
    check_lerp(a, b, alphas, out)
    if out is None:
        out = [torch.empty((alphas.numel(), *x.shape), device=x.device) for x in a]
    _lerp(a, b, alphas, out, relu=False)
    return list(out)


def lerp_relu(a: Tensor, b: Tensor, alphas: Tensor, out: Tensor | None = None) -> Tensor:
    """Interpolate pre-activations and apply a ReLU, at every alpha in one pass.

    A layer that is linear in its weights and sees the same input at every alpha has pre-activations that are linear
    in alpha, so two products serve all K networks.

    Args:
        a, b: the ends' pre-activations, one shape and device, float32.
        alphas: [K] float32 on the same device.
        out: a contiguous [K, *shape] float32 buffer to write; None makes one.

    Returns:
        [K, *shape] float32. NaN stays NaN.

    Raises:
        ValueError: as for `lerp_stacked`.
    """
    check_lerp([a], [b], alphas, None if out is None else [out])
    if out is None:
        out = torch.empty((alphas.numel(), *a.shape), device=a.device)
    _lerp([a], [b], alphas, [out], relu=True)
    return out


def lerp_linear(a: Tensor, b: Tensor, alphas: Tensor, weight: Tensor, bias: Tensor, *, relu: bool) -> Tensor:
    """Apply the second layer of K networks to their interpolated pre-activations, without storing these.

    out[k] = relu(lerp(a, b, alpha_k)) weight[k] + bias[k], then relu again if asked.

    Args:
        a, b: [B, H] pre-activations of the ends, float32.
        alphas: [K] float32.
        weight: [K, H, N] float32, inputs first; N is a multiple of 16 (pad with zeros).
        bias: [K, N] float32.
        relu: whether a ReLU follows.

    Returns:
        [K, B, N] float32; the products' rounding depends on the implementation.

    Raises:
        ValueError: an argument's shape, dtype or device is not as above.
    """
    check_lerp([a], [b], alphas, None)
    shape = (alphas.numel(), a.shape[-1])
    for name, t in (("weight", weight), ("bias", bias)):
        if t.dtype != torch.float32 or t.device != alphas.device:
            raise ValueError(f"{name} is {t.dtype} on {t.device}, expected float32 on {alphas.device}")
    if a.dim() != 2 or weight.dim() != 3 or weight.shape[:2] != shape or weight.shape[2] % 16:
        raise ValueError(
            f"a has shape {tuple(a.shape)} and weight {tuple(weight.shape)}, expected [B, H] and [K, H, N]"
            f" with K = {shape[0]} and N a multiple of 16"
        )
    check_no_gradient(weight=weight, bias=bias)
    if bias.shape != (weight.shape[0], weight.shape[2]):
        raise ValueError(f"bias has shape {tuple(bias.shape)}, expected [K, N] as in weight")
    if alphas.device.type == "cpu" and kernels_available("cpu"):
        operands = (t.contiguous() for t in (a, b, alphas, weight, bias))
        return torch.ops.lthbench.lerp_linear(*operands, relu)
    out = torch.baddbmm(bias[:, None], lerp_relu(a, b, alphas), weight)
    return out.relu_() if relu else out


def count_errors(logits: Tensor, labels: Tensor) -> Counts:
    """Sum the cross entropy and count the wrong labels of K networks in one pass; no probability is stored.

    loss_sum[k] = sum_i (log sum_c exp(z_kic - m_ki) + m_ki - z_ki,label_i) with m_ki the row's maximum. The predicted
    label is the lowest class of the highest logit, as torch.argmax; NaN ranks highest.

    Args:
        logits: [K, B, C] float32, contiguous.
        labels: [B] int64 on the same device. A row whose label is outside 0 .. C-1 gives NaN and counts as wrong.

    Returns:
        Sums over the B images of each network; in a fixed order, so the same bits at every number of threads.

    Raises:
        ValueError: an argument's shape, dtype, device or layout is not as above.
    """
    check_count(logits, labels)
    if kernels_available(logits.device):
        return Counts(*torch.ops.lthbench.count_errors(logits.contiguous(), labels.contiguous()))
    num_classes = logits.shape[2]
    valid = (labels >= 0) & (labels < num_classes)
    index = labels.where(valid, torch.zeros_like(labels)).expand(logits.shape[:2]).unsqueeze(2)
    z = logits.double()
    loss = z.logsumexp(2) - z.gather(2, index).squeeze(2)
    loss = loss.where(valid, torch.full_like(loss, float("nan")))
    wrong = (logits.argmax(2) != labels) | ~valid
    return Counts(loss.sum(1), wrong.sum(1))


def _lerp(a: Sequence[Tensor], b: Sequence[Tensor], alphas: Tensor, out: Sequence[Tensor], *, relu: bool) -> None:
    if kernels_available(alphas.device):
        ends = [[x.contiguous() for x in tensors] for tensors in (a, b)]
        torch.ops.lthbench.lerp_stacked_(list(out), *ends, alphas.contiguous(), relu)
        return
    for x, y, o in zip(a, b, out, strict=True):
        difference = y - x
        for k, alpha in enumerate(alphas):
            if alpha < 0.5:
                torch.add(x, difference * alpha, out=o[k])
            else:
                torch.sub(y, difference * (1 - alpha), out=o[k])
        if relu:
            o.relu_()


def check_lerp(a: Sequence[Tensor], b: Sequence[Tensor], alphas: Tensor, out: Sequence[Tensor] | None) -> None:
    """Validate the arguments of `lerp_stacked`; each message names the argument at fault."""
    if alphas.dim() != 1 or alphas.numel() == 0 or alphas.dtype != torch.float32:
        raise ValueError(
            f"alphas is {alphas.dtype} of shape {tuple(alphas.shape)}, expected at least one float32 in one dimension"
        )
    lists = {"a": a, "b": b} if out is None else {"a": a, "b": b, "out": out}
    for name, tensors in lists.items():
        if len(tensors) != len(a):
            raise ValueError(f"{name} has {len(tensors)} tensors but a has {len(a)}; give one each")
        for i, (t, x) in enumerate(zip(tensors, a, strict=True)):
            shape = (alphas.numel(), *x.shape) if name == "out" else x.shape
            if t.shape != shape:
                raise ValueError(f"{name}[{i}] has shape {tuple(t.shape)}, expected {tuple(shape)}")
            if t.dtype != torch.float32:
                raise ValueError(f"{name}[{i}] has dtype {t.dtype}, expected torch.float32")
            if t.device != alphas.device:
                raise ValueError(f"{name}[{i}] is on {t.device}, alphas on {alphas.device}; move one to the other")
            check_no_gradient(**{f"{name}[{i}]": t})
            if name == "out" and not t.is_contiguous():
                raise ValueError(f"out[{i}] is not contiguous; give a buffer of new_empty")


def check_count(logits: Tensor, labels: Tensor) -> None:
    """Validate the arguments of `count_errors`; each message names the argument at fault."""
    if logits.dim() != 3 or logits.dtype != torch.float32 or logits.shape[2] == 0:
        raise ValueError(f"logits is {logits.dtype} of shape {tuple(logits.shape)}, expected float32 [K, B, C >= 1]")
    if labels.shape != logits.shape[1:2] or labels.dtype != torch.int64:
        raise ValueError(
            f"labels is {labels.dtype} of shape {tuple(labels.shape)}, expected int64 [B] with B = {logits.shape[1]}"
        )
    if labels.device != logits.device:
        raise ValueError(f"labels is on {labels.device}, logits on {logits.device}; move one to the other")
    check_no_gradient(logits=logits)


@shape_only("lerp_stacked_")
def _lerp_stacked_shape(out: list[Tensor], a: list[Tensor], b: list[Tensor], alphas: Tensor, relu: bool) -> None:
    torch._check(len(out) == len(a), lambda: f"out has {len(out)} tensors, a {len(a)}")


@shape_only("lerp_linear")
def _lerp_linear_shape(a: Tensor, b: Tensor, alphas: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
    torch._check(weight.dim() == 3, lambda: f"weight has shape {tuple(weight.shape)}, expected [K, H, N]")
    return a.new_empty(alphas.shape[0], a.shape[0], weight.shape[2])


@shape_only("count_errors")
def _count_errors_shape(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    torch._check(logits.dim() == 3, lambda: f"logits has shape {tuple(logits.shape)}, expected [K, B, C]")
    num_networks = logits.shape[0]
    loss_sum = logits.new_empty(num_networks, dtype=torch.float64)
    return loss_sum, logits.new_empty(num_networks, dtype=torch.int64)
