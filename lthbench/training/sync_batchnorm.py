"""Batch normalisation over a whole batch whose images are divided among ranks.

What one process computes with nn.BatchNorm2d on the whole batch, within rounding, on every device and backend. With
n_r values of mean m_r and variance v_r a channel on rank r:

    N = sum n_r,   m = sum n_r m_r / N,   v = sum n_r (v_r + (m_r - m)^2) / N,   h = (x - m) / sqrt(v + eps)
    y = w h + b,   dx = w / sqrt(v + eps) (dy - sum dy / N - h sum(dy h) / N)

with the last two sums over all ranks; the gradients of w and b are each rank's own, to be summed as all gradients are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.engine.convert import replace_modules, with_tensors_of
from lthbench.training.distributed import Ranks

_PLACES = (0, 2, 3)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x [B, C, H, W] to y [B, C, H, W], and of all ranks the mean [C], the variance [C] and the count []."""
        channels = x.shape[1]
        own = torch.zeros(2 * channels + 1, dtype=weight.dtype, device=x.device)
        if len(x):  # a rank may have no image of a small last batch
            variance, mean = torch.var_mean(x.to(weight.dtype), _PLACES, correction=0)
            # Filling in a number on the device does not wait, unlike sending it there.
            own = torch.cat([mean, variance, mean.new_full((1,), x.numel() // channels)])
        means, variances, counts = ranks.all_gather(own).split([channels, channels, 1], 1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.ranks = ranks
        ctx.mark_non_differentiable(mean, variance, count)
        y = F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps) if len(x) else x.clone()
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        dy = grads[0].to(weight.dtype)
        normal = (x.to(weight.dtype) - _planes(mean)) * _planes(scale)
        grad_bias, grad_weight = dy.sum(_PLACES), (dy * normal).sum(_PLACES)
        whole = ctx.ranks.all_reduce_sum(torch.stack([grad_bias, grad_weight])) / count
        dx = (dy - _planes(whole[0]) - normal * _planes(whole[1])) * _planes(weight * scale)
        return dx.to(x.dtype), grad_weight, grad_bias, None, None


def _planes(channels: Tensor) -> Tensor:
    return channels[:, None, None]


class SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d that in training takes its statistics over the images of all ranks."""

    ranks: Ranks

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, ranks: Ranks) -> SyncBatchNorm2d:
        """The normalisation in this form, with its very parameters and statistics."""
        options = norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        new = with_tensors_of(norm, cls(norm.num_features, *options, device="meta"))
        new.ranks = ranks
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Activations [B, C, H, W] of this rank's images to the same shape."""
        if not self.training:
            return super().forward(x)
        y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps, self.ranks)
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.momentum is not None and self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp_min(1)), self.momentum)
        return y


def convert_sync_batchnorm(model: nn.Module, ranks: Ranks) -> None:
    """Let every batch normalisation below a model, in place, take its statistics over the images of all ranks.

    Raises:
        ValueError: one, of a plugin's model, is of another kind than nn.BatchNorm2d.
    """
    if ranks.size == 1:
        return
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not (
            type(module) is nn.BatchNorm2d and module.affine and module.momentum is not None
        ):
            raise ValueError(
                f"{name} is a {type(module).__name__} that one process alone can train; use nn.BatchNorm2d with scale, "
                "shift and momentum, or train in one process"
            )
    replace_modules(model, lambda m: SyncBatchNorm2d.of(m, ranks) if type(m) is nn.BatchNorm2d else None)


def count_batches_on_host(model: nn.Module) -> None:
    """Keep on the host how many batches each normalisation has seen: on a GPU each count is a launch of its own."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.num_batches_tracked is not None:
            module.num_batches_tracked = module.num_batches_tracked.cpu()
