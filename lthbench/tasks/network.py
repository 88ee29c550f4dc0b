"""Networks of specifications: built for a data set's images, initialised by the replicate's streams, masked."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lthbench.data.spec import DataSpec
from lthbench.models.build import build, head, initialise
from lthbench.models.spec import ModelSpec
from lthbench.training.streams import stream


def make_network(spec: ModelSpec, data: DataSpec, device: torch.device) -> nn.Module:
    """The network for a data set's images, with weights not yet initialised."""
    model = build(spec, data.info.image_shape, data.info.num_classes).to(device)
    # Channels-last convolutions are faster on every device here and give one layout to weights, masks and momentum.
    return model.to(memory_format=torch.channels_last) if data.info.image_shape[0] > 1 else model


def set_initial_weights(model: nn.Module, spec: ModelSpec, seed: int, init: int = 0) -> None:
    """Initialise: every parameter from its own stream (seed, init or head, init, name)."""
    output = head(model, spec) + "."
    initialise(model, spec, lambda name: stream(seed, "head" if name.startswith(output) else "init", init, name))


def with_shuffled_survivors(
    weights: Mapping[str, Tensor], names: list[str], mask: Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    """The weights, with the surviving ones of each layer of `names` permuted among their positions by the layer's
    stream.

    Each layer keeps its values, and so its norm, and its mask; only the positions of the values are lost. All weights
    of a layer without a mask survive.

    Source: the shuffling of Zhou et al. 2019 (arXiv 1905.01067) and Frankle et al. 2020 (arXiv 2009.08576).
    """
    shuffled = dict(weights)
    for name in names:
        flat = weights[name].detach().reshape(-1).clone()
        places = mask[name].reshape(-1).nonzero()[:, 0] if name in mask else torch.arange(len(flat), device=flat.device)
        order = torch.from_numpy(stream(seed, "init", "shuffle", name).permutation(len(places)))
        flat[places] = flat[places[order.to(places.device)]]
        shuffled[name] = flat.reshape(weights[name].shape)
    return shuffled


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and normalisation statistics by name."""
    return {name: t.detach().clone() for name, t in model.state_dict().items()}


@torch.no_grad()
def apply_mask(model: nn.Module, mask: Mapping[str, Tensor]) -> None:
    """Set the pruned weights to exactly 0."""
    parameters = dict(model.named_parameters())
    for name, survivors in mask.items():
        parameters[name].masked_fill_(~survivors, 0.0)
