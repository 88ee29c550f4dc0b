"""The K networks on the path between two, and their normalisation statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lthbench.engine.graph import Fused
from lthbench.ops.interpolation import lerp_stacked


class Networks:
    """The K networks on the path, by name: stacked where memory allows, else formed anew in one buffer."""

    def __init__(
        self, state_a: Mapping[str, Tensor], state_b: Mapping[str, Tensor], points: Tensor, stacked_bytes: int
    ) -> None:
        self.names = [name for name, t in state_a.items() if t.is_floating_point()]
        if not self.names:
            raise ValueError("state_a holds no floating point tensor; give a network's state_dict")
        self.num_points = len(points)
        self.a = [state_a[name].detach().float() for name in self.names]
        self.b = [state_b[name].detach().float() for name in self.names]
        self.device = self.a[0].device
        self.alphas = points.to(self.device, torch.float32)
        self.constant = {name: t.detach() for name, t in state_a.items() if name not in set(self.names)}
        self.recomputed: dict[str, Tensor] = {}  # name -> [K, *shape], in place of what is interpolated
        self.bytes_each = sum(t.numel() * t.element_size() for t in self.a)
        self.fits = self.num_points * self.bytes_each <= stacked_bytes
        self._stacks: dict[str, Tensor] = {}
        self._buffers: list[Tensor] | None = None

    def network(self, k: int) -> dict[str, Tensor]:
        """The whole state of network k; valid until the next call where the networks do not fit in memory."""
        if self.fits:
            state = {name: t[k] for name, t in self.stacks(self.names).items()}
        else:
            alpha = self.alphas[k : k + 1]
            self._buffers = lerp_stacked(self.a, self.b, alpha, self._buffers)
            state = {name: t[0] for name, t in zip(self.names, self._buffers, strict=True)}
        return {**self.constant, **state, **{name: t[k] for name, t in self.recomputed.items()}}

    def stacks(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The entries of all networks by name, [K, *shape] each; only where the networks fit in memory."""
        wanted = set(names) - set(self.recomputed) - set(self._stacks)
        chosen = [i for i, name in enumerate(self.names) if name in wanted]
        made = lerp_stacked([self.a[i] for i in chosen], [self.b[i] for i in chosen], self.alphas)
        self._stacks.update({self.names[i]: t for i, t in zip(chosen, made, strict=True)})
        known = {**self._stacks, **self.recomputed}
        return {name: known[name] for name in names}

    def recompute_statistics(
        self, model: nn.Module, fused: Fused | None, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> None:
        """Estimate every normalisation layer's statistics as the mean over the batches, in their order."""
        channels_last = fused is not None and self.device.type == "cpu"
        model = fused.trainable if fused is not None else model
        layers = {name: m for name, m in model.named_modules() if _keeps_statistics(m)}
        for name, layer in layers.items():
            for buffer, start in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
                tensor = getattr(layer, buffer)
                # The host reads the number of batches in every forward pass, and would wait for a GPU there.
                place = torch.device("cpu") if buffer == "num_batches_tracked" else self.device
                self.recomputed[f"{name}.{buffer}"] = torch.full(
                    (self.num_points, *tensor.shape), start, dtype=tensor.dtype, device=place
                )
        momenta = {layer: layer.momentum for layer in layers.values()}
        seen = False
        try:
            for layer in momenta:
                layer.train()
                layer.momentum = None  # the mean over all batches instead of a decaying one
            for images, _ in batches:
                seen = True
                with torch.inference_mode():
                    x = images.to(self.device)
                    if channels_last and x.dim() == 4:
                        x = x.contiguous(memory_format=torch.channels_last)
                    for k in range(self.num_points):
                        functional_call(model, self.network(k), (x,))
        finally:
            for layer, momentum in momenta.items():
                layer.momentum = momentum
                layer.eval()
        if not seen:
            raise ValueError("statistics_batches holds no batch; give at least one")


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
