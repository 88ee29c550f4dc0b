"""Loss and error along the linear interpolation path between two networks, in one pass over the data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lthbench.engine.path_forward import make_forward
from lthbench.engine.path_weights import Networks
from lthbench.engine.trace import fuse
from lthbench.ops.interpolation import count_errors

State = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]


class LinearPathResult(NamedTuple):
    """Loss and error of every network on the path; entry k is at alpha_k."""

    loss: Tensor  # [K] float64, mean cross entropy an image
    error: Tensor  # [K] float64, fraction of images whose label is wrong
    num_images: int


def evaluate_linear_path(
    model: nn.Module,
    state_a: State,
    state_b: State,
    alphas: Tensor | Sequence[float],
    batches: Iterable[Batch],
    *,
    mask: Mapping[str, Tensor] | None = None,
    statistics: Literal["interpolate", "recompute"] = "interpolate",
    statistics_batches: Iterable[Batch] | None = None,
    method: Literal["auto", "fused", "blocked", "stacked", "each"] = "auto",
    stacked_bytes: int = 2 << 30,
    trained_blocked: bool = False,
) -> LinearPathResult:
    """Evaluate the networks a + alpha (b - a) for all alphas in one pass over the batches.

    Args:
        model: the architecture; its own weights are neither read nor changed.
        state_a: name -> parameter or buffer of the end at alpha = 0, as in `state_dict`, on the device to run on.
        state_b: the same names, shapes and device for the end at alpha = 1. Floating point entries are
            interpolated in float32; others (counters) are taken from state_a.
        alphas: [K] points; 0 and 1 give exactly the two ends.
        batches: (images [B, C, H, W] float32, labels [B] int64) pairs, iterated once.
        mask: name -> bool tensor of its shape, False where both ends are pruned, so that convolutions may skip it; a
            name without one is dense.
        statistics: "interpolate" interpolates normalisation statistics like any other entry; "recompute" estimates
            them for each network as the mean over `statistics_batches` of each batch's statistics in training mode
            (as torch.optim.swa_utils.update_bn does).
        statistics_batches: batches for "recompute", iterated once, in their order.
        method: how the networks are evaluated.
            "each": the model as it is, one network after another.
            "fused": likewise on a graph with normalisation folded into convolutions and activations fused.
            "blocked": "fused" in the batch-blocked layout, with convolutions over the kept weights, or by Winograd's
            filtering where a quarter or more are kept; CPU only.
            "stacked": all at once by torch.vmap.
            "auto": "stacked" for small networks on CUDA, "blocked" at low density and for narrow networks on the
            CPU (with AVX-512), else "fused", and "each" for what cannot be traced and fused.
        stacked_bytes: networks that together need more memory than this are formed anew for every batch.
        trained_blocked: whether the blocked engine trained both ends. Then "auto" chooses "blocked" without AVX-512
            too, where it is faster as well, and has other bits.

    Returns:
        Loss and error of every network on the CPU. Each network's loss agrees with that of evaluating it alone up
        to float32 rounding; the result is the same bits at every run with the same number of threads.

    Raises:
        ValueError: the states' names, shapes or devices disagree, a weight outside of the mask is not 0,
            `statistics_batches` is missing or superfluous, or there was no image.
        TypeError: a state or the mask is not a mapping from names to tensors.

    >>> import torch, lthbench
    >>> model, other = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    >>> images, labels = torch.randn(32, 4), torch.randint(3, (32,))  # [B, 4] and [B]
    >>> a, b, alphas = model.state_dict(), other.state_dict(), [0.0, 0.5, 1.0]
    >>> line = lthbench.evaluate_linear_path(model, a, b, alphas, [(images, labels)])
    >>> barrier = line.error.max() - (line.error[0] + line.error[-1]) / 2  # of error, a fraction

    Equivalent, up to rounding, to

    >>> losses = []
    >>> for alpha in alphas:
    ...     state = {name: torch.lerp(a[name], b[name], alpha) for name in a}
    ...     logits = torch.func.functional_call(model, state, (images,))
    ...     losses.append(torch.nn.functional.cross_entropy(logits, labels).item())
    >>> torch.allclose(line.loss, torch.tensor(losses, dtype=torch.float64))
    True
    """
    points = torch.as_tensor(alphas, dtype=torch.float64).reshape(-1).cpu()
    _check_mappings(state_a=state_a, state_b=state_b, mask=mask if mask is not None else {})
    mask = mask or {}
    _check(model, state_a, state_b, points, statistics, statistics_batches)
    _check_mask(mask, state_a, state_b)
    num_images = 0
    with _evaluation_mode(model):
        networks = Networks(state_a, state_b, points, stacked_bytes)
        if statistics_batches is not None:
            networks.recompute_statistics(model, fuse(model), statistics_batches)
        # Summed on the networks' device, and read once.
        loss_sum = torch.zeros(len(points), dtype=torch.float64, device=networks.device)
        num_errors = torch.zeros(len(points), dtype=torch.int64, device=networks.device)
        forward, chunk = make_forward(model, networks, method, mask, trained_blocked=trained_blocked)
        # Measurement stays outside inference_mode: what the iterable keeps may be trained on later.
        for images, labels in batches:
            with torch.inference_mode():
                for x, y in zip(images.split(chunk), labels.split(chunk), strict=True):
                    counts = count_errors(forward(x.to(networks.device)), y.to(networks.device))
                    loss_sum += counts.loss_sum
                    num_errors += counts.num_errors
            num_images += len(labels)
    if num_images == 0:
        raise ValueError("batches holds no image; give at least one")
    return LinearPathResult(loss_sum.cpu() / num_images, num_errors.cpu().double() / num_images, num_images)


def _check_mappings(**given: object) -> None:
    for argument, tensors in given.items():
        how = "give a dictionary, name -> tensor, as of state_dict()"
        if not isinstance(tensors, Mapping):
            raise TypeError(f"{argument} is a {type(tensors).__name__}; {how}")
        for name, tensor in tensors.items():
            if not isinstance(name, str):
                raise TypeError(f"{argument} has a {type(name).__name__} in place of a name; {how}")
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{argument} holds a {type(tensor).__name__} for {name}; {how}")


def _check(
    model: nn.Module,
    state_a: State,
    state_b: State,
    points: Tensor,
    statistics: str,
    statistics_batches: Iterable[Batch] | None,
) -> None:
    if len(points) == 0:
        raise ValueError("alphas is empty; give at least one point")
    for k, point in enumerate(points.float()):
        if not point.isfinite():
            raise ValueError(f"alphas[{k}] is {float(point)}, expected a number")
    if set(state_a) != set(state_b):
        different = sorted(set(state_a) ^ set(state_b))
        raise ValueError(f"state_a and state_b hold different names: {', '.join(different[:5])}")
    if set(state_a) != set(model.state_dict()):
        different = sorted(set(state_a) ^ set(model.state_dict()))
        raise ValueError(f"state_a and model hold different names: {', '.join(different[:5])}")
    for name, a in state_a.items():
        b = state_b[name]
        if a.shape != b.shape or a.device != b.device or a.is_floating_point() != b.is_floating_point():
            raise ValueError(
                f"{name} is {a.dtype} {tuple(a.shape)} on {a.device} in state_a, "
                f"{b.dtype} {tuple(b.shape)} on {b.device} in state_b"
            )
    if statistics not in ("interpolate", "recompute"):
        raise ValueError(f"statistics is {statistics!r}, expected 'interpolate' or 'recompute'")
    if (statistics == "recompute") != (statistics_batches is not None):
        raise ValueError("give statistics_batches with statistics='recompute', and only then")


def _check_mask(mask: Mapping[str, Tensor], state_a: State, state_b: State) -> None:
    for name, kept in mask.items():
        if name not in state_a or kept.shape != state_a[name].shape or kept.dtype != torch.bool:
            raise ValueError(
                f"mask holds {kept.dtype} {tuple(kept.shape)} for {name}, which is not a weight of that shape"
            )
        if kept.device != state_a[name].device:
            raise ValueError(f"mask lies on {kept.device} for {name}, which is on {state_a[name].device}")
    ends = {"state_a": state_a, "state_b": state_b}
    outside = {
        (end, name): state[name].masked_fill(mask[name], 0).any() for end, state in ends.items() for name in mask
    }
    # Read together, since each read from a GPU waits for it.
    for (end, name), found in zip(outside, torch.stack([*outside.values()]).tolist() if outside else (), strict=True):
        if found:
            raise ValueError(f"{name} of {end} is not 0 outside of its mask")


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training
