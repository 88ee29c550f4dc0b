"""What each step trains on: its images in the epoch's order, augmented, divided into micro batches and among ranks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from lthbench.data.images import ImageSet
from lthbench.data.to_device import to_device
from lthbench.models.depth import StochasticDepth, draw_kept, stochastic_layers
from lthbench.training.distributed import Ranks
from lthbench.training.recipe import Recipe
from lthbench.training.streams import stream


class MicroBatch(NamedTuple):
    """One forward and backward pass of a step.

    Attributes:
        places: its positions in the batch.
        images: float32 [b, C, H, W].
        labels: int64 [b], or class probabilities float32 [b, classes].
        kept: for each layer with stochastic depth, its draws float32 [b].
    """

    places: slice
    images: Tensor
    labels: Tensor
    kept: list[Tensor]


class Batches:
    """The batches of one training, each a pure function of its step.

    Order, augmentation and stochastic depth are drawn for a whole batch, however it is divided.

    Args:
        seed, noise: name the streams.
        model: whose layers with stochastic depth get their draws.
    """

    def __init__(
        self, images: ImageSet, recipe: Recipe, num_classes: int, seed: int, noise: int, model: nn.Module, ranks: Ranks
    ) -> None:
        self.images, self.recipe, self.num_classes, self.ranks = images, recipe, num_classes, ranks
        self.seed, self.noise = seed, noise
        self.batch_size = min(recipe.batch_size, len(images))
        self.steps_per_epoch = recipe.steps_per_epoch(len(images))
        self.stochastic: list[StochasticDepth] = stochastic_layers(model)
        self._augments = recipe.augment.active
        self._order: tuple[int, Tensor] | None = None

    def order(self, epoch: int) -> Tensor:
        """The images of an epoch in the order in which they are presented, int64 [N]."""
        if self._order is None or self._order[0] != epoch:
            order = stream(self.seed, "order", self.noise, epoch).permutation(len(self.images))
            self._order = (epoch, to_device(order, self.images.device))
        return self._order[1]

    def at(self, step: int) -> tuple[Tensor, list[MicroBatch]]:
        """The batch of a step: its images, int64 [B], and this rank's parts of it, at least one, some maybe empty."""
        epoch, position = divmod(step, self.steps_per_epoch)
        index = self.order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        size = len(index)
        micro = self.recipe.micro_batch or size
        places = [self.ranks.shard(begin, min(begin + micro, size)) for begin in range(0, size, micro)]
        own = None
        if self.ranks.size > 1:
            own = np.concatenate([np.arange(place.start, place.stop) for place in places])
        rng = stream(self.seed, "augment", self.noise, step) if self._augments else None
        images, labels = self.images.training_batch(index, self.num_classes, self.recipe.augment, rng, own)
        kept = self._draw_kept(step, size, own) if self.stochastic else []
        if len(places) == 1:
            return index, [MicroBatch(places[0], images, labels, kept)]
        lengths = [place.stop - place.start for place in places]
        divided = zip(places, images.split(lengths), labels.split(lengths), strict=True)
        draws = zip(*(draw.split(lengths) for draw in kept), strict=True) if kept else [()] * len(places)
        return index, [MicroBatch(*part, list(draw)) for part, draw in zip(divided, draws, strict=True)]

    def _draw_kept(self, step: int, size: int, own: np.ndarray | None) -> list[Tensor]:
        seed = int(stream(self.seed, "augment", self.noise, "layers", step).integers(2**63))
        return draw_kept(self.stochastic, size, seed, self.images.device, own)
