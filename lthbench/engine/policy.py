"""How networks are made fast: every choice, and the measured thresholds behind it.

A choice follows from shapes, masks and the environment (device, instruction set, libraries), never from a time of the
run itself, so that the same network in the same environment takes the same kernels and gives the same bits.
`choose_kernel` decides for a layer, `choose_path_engine` for the networks of a linear interpolation path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lthbench.machine import cpuinfo
from lthbench.ops._library import kernels_available
from lthbench.ops.cpu import has_avx512

if TYPE_CHECKING:
    from lthbench.engine.graph import Fused
    from lthbench.engine.path_weights import Networks

# Of a 3x3 convolution in the batch-blocked layout, evaluated: the density under which visiting kept weights alone was
# measured to be faster than Winograd's filtering, and the channels above which they and oneDNN are.
SPARSE_DENSITY = 0.25
WINOGRAD_CHANNELS = 256


class TrainingLimits(NamedTuple):
    """Between which densities and sizes a convolution is trained by which kernel.

    Attributes:
        sparse_density: under which kept weights alone are faster than Winograd's filtering.
        channels: above which torch's dense convolution is the faster one.
        wide_density: under which kept weights are faster than torch's, of more channels than these.
    """

    sparse_density: float
    channels: int
    wide_density: float


# Forward and both gradients, `lthbench bench engine --layers` with torch 2.14 and one thread, in ms.
#
# Intel Xeon, Emerald Rapids, AVX-512:
#
#     channels, pixels, images   torch   kept weights at 1 / .5 / .2 / .1 / .05 / .02   Winograd
#     16, 32, 64                   7.8    10.6 /   7.8 /  4.9 /  4.0 /  3.4 / 2.9           8.0
#     32, 16, 64                   7.5    10.7 /   7.5 /  4.2 /  3.3 /  2.5 / 2.1           7.0
#     64,  8, 64                   6.3    10.9 /   7.5 /  3.9 /  2.6 /  1.9 / 1.5           6.7
#     256, 4, 32                  17.4    49.3 /  30.1 / 13.7 /  8.1 /  4.8 / 2.7          24.6
#     512, 4, 32                  77.6   210.0 / 141.0 / 54.3 / 32.4 / 18.5 / 9.9         110.0
#     512, 2, 32                  58.0   185.0 / 104.0 / 45.5 / 25.7 / 16.3 / 8.8         108.0
#
# (On an AMD EPYC, Zen 5: 128 channels of 16 pixels, 32 images: 32.4 by torch, 30.7 / 22.4 / 15.5 at .5 / .35 / .2, and
# 27.8 by Winograd; 256 of 8 pixels: 32.5, 42.9 / 30.6 / 19.4, 31.3.)
#
# AMD EPYC, Zen 3, AVX2:
#
#     channels, pixels, images   torch   kept weights at 1 / .5 / .35 / .2 / .1 / .05 / .02   Winograd
#     16, 32, 64                  21.2    29.3 / 20.2 /   - / 19.7 / 10.9 /  9.4 / 9.5          16.1
#     32, 16, 64                  19.2    27.3 / 13.9 /   - /  7.5 /  6.5 /  6.8 / 4.8          11.1
#     64,  8, 64                  15.3    24.7 / 14.8 /   - /  6.8 /  4.0 /  2.8 / 1.7           8.1
#     256, 4, 32                  31.7    76.1 / 39.8 /   - / 17.5 /  9.8 /  6.0 / 3.6          21.7
#     512, 8, 16                 256.4       - /    - / 185.8 / 135.0                          203.2
#     512, 4, 32                 204.2       - /    - / 146.8 / 85.4                           199.4
#     512, 2, 32                  63.8       - /    - / 72.7 / 48.1                            143.1
TRAINING_AVX512 = TrainingLimits(sparse_density=0.45, channels=128, wide_density=0.25)
TRAINING_AVX2 = TrainingLimits(sparse_density=0.25, channels=256, wide_density=0.35)

# Of all convolutions of a network, under which the blocked layout was measured to be faster than oneDNN even where the
# network leaves it or has wide layers.
BLOCKED_DENSITY = 0.35

# Of a linear layer in a training: the weights from which, and the density under which, kept weights alone are faster.
# Forward and the gradients that are needed, 64 images, on the processor above, in us:
#
#     inputs -> outputs          torch   kept weights at .2 / .1 / .05 / .02
#     784 -> 300                  1361    2401 / 1440 / 1061 / 874
#     300 -> 100                   404     601 /  460 /  449 / 397
LINEAR_DENSITY = 0.08
MIN_LINEAR_WEIGHTS = 100_000

# Bytes of weights from which one network is taken to fill a GPU; smaller ones are stacked.
FILLS_A_GPU = 16 << 20

# Images evaluated at a time, so that activations of small networks stay in the cache; of each thread on the CPU.
IMAGES_CUDA = 1024
IMAGES_PLANES = 64
IMAGES_BLOCKED = 64
IMAGES_VECTORS = 336

# What the activations of a path may take of a GPU. Far below what most have free, so that how images are divided, and
# with it the order of sums, is the same on all of them.
BYTES_CUDA = 4 << 30

# Multiplications of one product, [B, I] by [I, O] has B I O, from which oneDNN takes it on processors that are not
# Intel's: it needs 10 us before it multiplies, and an autograd function in Python as much again for a layer. Measured
# with torch 2.14 and one thread of an AMD Zen 5 with AVX-512, at 60 images a batch (MKL / oneDNN, in us):
#
#     inputs -> outputs   forward      gradient of the weight   gradient of the input
#     784 -> 300          288 / 152    276 / 139                278 / 139
#     4096 -> 256         1234 / 590   1259 / 541               1262 / 598
#     300 -> 100          40 / 30      37 / 30                  37 / 26
#     100 -> 10           5 / 13       3 / 14                   3 / 12
MIN_MULTIPLICATIONS = 1_500_000

# Of a layer: torch's own operator; oneDNN's matrix product; in the batch-blocked layout, a convolution over the kept
# weights alone, or a dense one by Winograd's filtering.
Kernel = Literal["torch", "onednn", "sparse", "winograd"]

METHODS = ("auto", "fused", "blocked", "stacked", "each")


@cache
def policy_digest() -> str:
    """The first 8 hex digits of the SHA-256 of this file: which kernels train is decided here, and so which bits."""
    return sha256(Path(__file__).read_bytes()).hexdigest()[:8]


def choose_kernel(
    layer: nn.Module, mask: Tensor | None = None, *, blocked: bool = False, trained: bool = False
) -> Kernel:
    """The kernel that computes a layer.

    Args:
        mask: bool, of the shape of the layer's weight; None where it is dense.
        blocked: whether the layer is a convolution in the batch-blocked layout; otherwise it is a layer of a training.
        trained: of such a convolution, whether it is trained; otherwise it is evaluated.
    """
    if blocked:
        assert isinstance(layer, nn.Conv2d)
        limits = training_limits()
        sparse = limits.sparse_density if trained else SPARSE_DENSITY
        channels = limits.channels if trained else WINOGRAD_CHANNELS
        dense = _density(mask) >= sparse and max(layer.weight.shape[:2]) <= channels
        three_by_three = (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
        return "winograd" if dense and three_by_three else "sparse"
    if type(layer) is nn.Linear and layer.weight.device.type == "cpu" and layer.weight.dtype is torch.float32:
        return "onednn" if onednn_is_faster() else "torch"
    return "torch"


def _density(mask: Tensor | None) -> float:
    """The share of weights that are kept."""
    return 1.0 if mask is None else float(mask.float().mean())


def has_blocked_form(layer: nn.Conv2d) -> bool:
    """Whether there are kernels for a convolution, and for its gradients, in the batch-blocked layout."""
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros" or layer.bias is not None or layer.groups != 1:
        return False
    square = all(len(set(sides)) == 1 for sides in (layer.kernel_size, layer.stride, layer.padding))
    kernel, padding = layer.kernel_size[0], layer.padding[0]
    return square and set(layer.dilation) == {1} and padding <= 1 and kernel <= padding + 2


def trains_blocked(layer: nn.Conv2d, mask: Tensor | None) -> bool:
    """Whether a convolution of a training by the blocked engine is batch-blocked, or left to torch."""
    if not has_blocked_form(layer):
        return False
    limits = training_limits()
    return max(layer.weight.shape[:2]) <= limits.channels or _density(mask) < limits.wide_density


def training_limits() -> TrainingLimits:
    """Those of the instruction set that torch uses here."""
    return TRAINING_AVX512 if has_avx512() else TRAINING_AVX2


def trains_sparse(layer: nn.Linear, mask: Tensor) -> bool:
    """Whether a linear layer of a training by the blocked engine is over its kept weights alone, or left to torch."""
    return layer.weight.numel() >= MIN_LINEAR_WEIGHTS and _density(mask) < LINEAR_DENSITY


def may_train_blocked(model: nn.Module) -> bool:
    """Whether there are kernels here for training a model in the batch-blocked layout."""
    return kernels_available("cpu") and all(p.device.type == "cpu" for p in model.parameters())


def is_large_product(x: Tensor, num_outputs: int) -> bool:
    """Whether oneDNN takes the product of x [B, I] with a layer's weight [O, I], where `choose_kernel` chose it."""
    return x.dim() == 2 and x.dtype is torch.float32 and x.numel() * num_outputs >= MIN_MULTIPLICATIONS


@cache
def onednn_is_faster() -> bool:
    """Whether this is a processor with AVX-512 that is not Intel's, and a torch with MKL that has oneDNN beside it."""
    return (
        has_avx512()
        and cpuinfo().get("vendor_id", "") not in ("", "GenuineIntel")  # by which MKL chooses too
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def onednn_fuses(x: Tensor) -> bool:
    """Whether oneDNN convolves x [B, C, H, W] and does what follows (a sum, a ReLU) in the same pass."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and _has_fused_convolutions()


@cache
def _has_fused_convolutions() -> bool:
    """Whether this torch is built with oneDNN and has the fused convolutions that its compiler uses."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")


class PathEngine(NamedTuple):
    """How the networks of a linear interpolation path are evaluated."""

    method: Literal["fused", "blocked", "stacked", "each"]  # as for `evaluate_linear_path`
    graph: Fused | None  # of "fused" and "blocked"
    num_images: int  # at a time


def choose_path_engine(
    networks: Networks,
    mask: Mapping[str, Tensor],
    trace: Callable[[bool], Fused | None],
    method: str = "auto",
    *,
    trained_blocked: bool = False,
) -> PathEngine:
    """Choose how the networks of a path are evaluated.

    Args:
        mask: weight name -> bool tensor; a weight without one is dense.
        trace: the network's graph, in the batch-blocked layout or not; None where it cannot be traced and fused.
        method: as for `evaluate_linear_path`; any but "auto" is taken, if it applies.
        trained_blocked: as for `evaluate_linear_path`.

    Raises:
        ValueError: the method does not apply to the model or its device.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    on_cpu, threads = networks.device.type == "cpu", torch.get_num_threads()
    may_prefer = has_avx512() or trained_blocked
    if on_cpu and (
        method == "blocked" or (method == "auto" and may_prefer and _may_prefer_blocked_layout(networks, mask))
    ):
        blocked = trace(True)
        # Leaving the layout and coming back to it costs more than it saves, unless few weights are left.
        worth_it = blocked is not None and (blocked.stays_in_blocks or _is_sparse(networks, mask))
        if blocked is not None and (worth_it or method == "blocked"):
            return PathEngine("blocked", blocked, IMAGES_BLOCKED * threads)
    if method == "blocked":
        raise ValueError("method is 'blocked', but the model is not on the CPU or cannot be fused; use 'auto'")
    graph = trace(False)
    if method == "fused" and graph is None:
        raise ValueError("method is 'fused', but the model cannot be traced and fused; use 'auto'")
    if method == "stacked" and not networks.fits:
        raise ValueError("method is 'stacked', but the networks need more than stacked_bytes; use 'auto'")
    fills_device = on_cpu or networks.bytes_each > FILLS_A_GPU or not networks.fits
    planes = graph is None or graph.has_convolution
    num_images = (IMAGES_PLANES if planes else IMAGES_VECTORS) * threads if on_cpu else IMAGES_CUDA
    if method == "stacked" or (method == "auto" and not fills_device):
        return PathEngine("stacked", None, num_images)
    if graph is not None and method != "each":
        return PathEngine("fused", graph, num_images)
    return PathEngine("each", None, num_images)


def _convolution_weights(networks: Networks) -> dict[str, Tensor]:
    return {name: weight for name, weight in zip(networks.names, networks.a, strict=True) if weight.dim() == 4}


def _is_sparse(networks: Networks, mask: Mapping[str, Tensor]) -> bool:
    """Whether few enough weights of the convolutions are kept for the batch-blocked layout to pay anywhere."""
    weights = _convolution_weights(networks)
    num_kept = sum(int(mask[name].sum()) if name in mask else weight.numel() for name, weight in weights.items())
    return num_kept < BLOCKED_DENSITY * sum(weight.numel() for weight in weights.values())


def _may_prefer_blocked_layout(networks: Networks, mask: Mapping[str, Tensor]) -> bool:
    """Whether the batch-blocked layout may be the faster one, as far as can be said without a graph."""
    weights = _convolution_weights(networks).values()
    if not weights or not kernels_available("cpu"):
        return False
    narrow = all(max(weight.shape[:2]) <= WINOGRAD_CHANNELS for weight in weights)
    return (narrow and networks.fits) or _is_sparse(networks, mask)
