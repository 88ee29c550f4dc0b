"""Batch normalisation of a training on blocks of images (ops/masked_convolution.py), done when its output is read.

A layer hands on its output as it is, with what normalises it; the next convolution normalises the rows that it reads,
in the cache, and anything else what `Activations.finished` makes. The equations are those of csrc/convolution_layer.h.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available
from lthbench.ops.convolution import from_blocks, to_blocks


class BatchNorm(NamedTuple):
    """A batch normalisation in training.

    Attributes:
        gain, bias: its weight and bias, [C] float32.
        running_mean, running_var: [C] float32, moved towards the batch's by `momentum` as in torch; None to keep none.
    """

    gain: Tensor
    bias: Tensor
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    momentum: float = 0.1
    eps: float = 1e-5

    def reference(self, y: Tensor, num_images: int) -> Tensor:
        """Of a layer's output y [G, C, H, W, 16] what normalises it, `Activations.affine`."""
        images = from_blocks(y)[:num_images]
        variance, mean = torch.var_mean(images, (0, 2, 3), correction=0)
        if self.running_mean is not None and self.running_var is not None:
            count = images.numel() // images.shape[1]
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * (count / max(count - 1, 1)), self.momentum)
        return torch.stack([mean, self.gain * (variance + self.eps).rsqrt(), self.bias])


class Activations(NamedTuple):
    """What a layer hands on: relu(scale (values - mean) + bias + residual).

    The kernels hand back for `values` the gradient of scale (values - mean), which is the residual's too, and multiply
    by the scale where the values were made: what autograd holds between them is no gradient of the values themselves.

    Attributes:
        values: [G, C, H, W, 16].
        affine: mean, scale and bias of every channel, [3, C]; None where the values are finished.
        residual: of the values' shape; None where nothing is added.
        relu: whether one follows.
    """

    values: Tensor
    affine: Tensor | None = None
    residual: Tensor | None = None
    relu: bool = False

    def finished(self, num_images: int) -> Tensor:
        """All of it done, [G, C, H, W, 16].

        Raises:
            RuntimeError: an argument's shape or dtype is not as above.
        """
        if self.affine is None:
            return self.values
        if not kernels_available("cpu"):
            return self.reference(num_images)
        x: Tensor = _Normalise.apply(*self, num_images)
        return x

    def reference(self, num_images: int) -> Tensor:
        """The same by torch's own functions; padding images are 0."""
        if self.affine is None:
            return self.values
        mean, scale, bias = self.affine[..., None, None]
        x = (from_blocks(self.values)[:num_images] - mean) * scale + bias
        if self.residual is not None:
            x = x + from_blocks(self.residual)[:num_images]
        return to_blocks(x.relu() if self.relu else x)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, affine: Tensor, residual: Tensor | None, relu: bool, num_images: int
    ) -> Tensor:
        x: Tensor = torch.ops.lthbench.normalise(values, affine, residual, relu)
        ctx.save_for_backward(values, affine, x)
        ctx.relu, ctx.num_images, ctx.adds = relu, num_images, residual is not None
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor | None, ...]:
        handed_back, affine = torch.ops.lthbench.normalise_gradient(
            dx.contiguous(), *ctx.saved_tensors, ctx.relu, ctx.num_images
        )
        return handed_back, affine, handed_back if ctx.adds else None, None, None


@shape_only("normalise")
def _normalise_shape(input: Tensor, affine: Tensor, residual: Tensor | None, relu: bool) -> Tensor:
    return torch.empty_like(input)


@shape_only("normalise_gradient")
def _normalise_gradient_shape(
    grad: Tensor, input: Tensor, affine: Tensor, finished: Tensor, relu: bool, num_images: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(input), torch.empty_like(affine)
