"""Networks of specifications: built for a data set's images, initialised by the replicate's streams, masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lthbench.data.spec import DataSpec
from lthbench.models.build import build, head, initialise, prunable, stem
from lthbench.models.spec import ModelSpec
from lthbench.training.streams import stream


def make_network(spec: ModelSpec, data: DataSpec, device: torch.device) -> nn.Module:
    """The network for a data set's images, with weights still to be set."""
    model = build(spec, data.info.image_shape, data.info.num_classes).to(device)
    # Channels-last convolutions are faster on every device here and give one layout to weights, masks and momentum.
    return model.to(memory_format=torch.channels_last) if data.info.image_shape[0] > 1 else model


def set_initial_weights(model: nn.Module, spec: ModelSpec, seed: int, init: int = 0) -> None:
    """Initialise: every parameter from its own stream (seed, init or head, init, name)."""
    output = head(model) + "."
    initialise(model, spec, lambda name: stream(seed, "head" if name.startswith(output) else "init", init, name))


@dataclass(frozen=True)
class Layout:
    """The names that pruning needs to know of a network: prunable weights in parameter order, head, stem."""

    prunable: list[str]
    head: str
    stem: str

    @classmethod
    def of(cls, model: nn.Module) -> Layout:
        return cls(prunable(model), head(model), stem(model))

    def is_head(self, name: str) -> bool:
        """Whether a parameter belongs to the output layer."""
        return name.startswith(self.head + ".")


@torch.no_grad()
def shuffle_weights(model: nn.Module, seed: int) -> None:
    """Permute the prunable weights within each layer, by their own streams."""
    parameters = dict(model.named_parameters())
    for name in prunable(model):
        flat = parameters[name].detach().reshape(-1)
        order = torch.from_numpy(stream(seed, "init", "shuffle", name).permutation(flat.numel()))
        parameters[name].copy_(flat[order.to(flat.device)].reshape(parameters[name].shape))


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and normalisation statistics by name."""
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


@torch.no_grad()
def apply_mask(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Set the pruned weights to exactly 0."""
    parameters = dict(model.named_parameters())
    for name, survivors in mask.items():
        parameters[name].masked_fill_(~survivors, 0.0)
