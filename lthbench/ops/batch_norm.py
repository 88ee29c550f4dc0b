"""Batch normalisation of a training in the batch-blocked layout (ops/convolution.py), with what follows it.

Its autograd function is that of the convolution before it (ops/masked_convolution.py).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lthbench.ops._fake import shape_only
from lthbench.ops.convolution import from_blocked, to_blocked


class BatchNorm(NamedTuple):
    """A batch normalisation, the sum and the ReLU behind it; the equations are those of csrc/batch_norm.h.

    Attributes:
        running_mean, running_var: [C] float32, moved towards the batch's by `momentum` as in torch; None to keep none.
        relu: whether a ReLU follows, behind the residual that is added, if any.
    """

    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    momentum: float = 0.1
    eps: float = 1e-5
    relu: bool = False

    def output(
        self, x: Tensor, weight: Tensor, bias: Tensor, num_images: int, residual: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """The output for x [G, C, H + 2, W + 2, 16] with a border of zeros, and what its gradient needs beside x.

        Raises:
            RuntimeError: an argument's shape or dtype is not as above.
        """
        y, mean, rstd, scale, offset = torch.ops.lthbench.blocked_batch_norm(
            x,
            weight,
            bias,
            residual,
            self.running_mean,
            self.running_var,
            num_images,
            self.eps,
            self.momentum,
            self.relu,
        )
        passed: tuple[Tensor | None, ...] = (None, None, None)  # nothing tells where a ReLU passed a gradient
        if self.relu:
            passed = (None, scale, offset) if residual is None else (y, None, None)
        return y, (*passed, weight, mean, rstd)

    def reference(self, x: Tensor, weight: Tensor, bias: Tensor, num_images: int, residual: Tensor | None) -> Tensor:
        """The output, by torch's own functions."""
        images = from_blocked(x)[:num_images]
        y = to_blocked(
            F.batch_norm(images, self.running_mean, self.running_var, weight, bias, True, self.momentum, self.eps)
        )
        if residual is not None:
            y = y + to_blocked(from_blocked(residual)[:num_images])
        return y.relu() if self.relu else y


@shape_only("blocked_batch_norm")
def _batch_norm_shape(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    num_images: int,
    eps: float,
    momentum: float,
    relu: bool,
) -> tuple[Tensor, ...]:
    return torch.empty_like(input), *(torch.empty_like(weight) for _ in range(4))


@shape_only("blocked_batch_norm_gradient")
def _batch_norm_gradient_shape(
    grad: Tensor,
    input: Tensor,
    output: Tensor | None,
    scale: Tensor | None,
    offset: Tensor | None,
    weight: Tensor,
    mean: Tensor,
    rstd: Tensor,
    num_images: int,
    residual: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    residual_grad = torch.empty_like(input) if residual else input.new_empty(0)
    return torch.empty_like(input), residual_grad, torch.empty_like(weight), torch.empty_like(weight)
