"""Tracking a training: validation accuracy along it, and how often each image is forgotten. It changes no weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class Tracker:
    """What is recorded of one training while it runs.

    At each presentation of an image, once an epoch, the training forward pass, before that step's update and with its
    augmentation, classifies it rightly or wrongly. An image is forgotten if it was right at one presentation and is
    wrong at the next (Toneva et al. 2019, arXiv 1812.05159).

    Args:
        every: iterations between two measurements.
        num_images: of the train set.
        measure: model -> accuracy on the validation split; it must not change the model.
    """

    def __init__(self, every: int, num_images: int, measure: Callable[[nn.Module], float], device: torch.device):
        self.every, self._measure = every, measure
        self.curve: list[tuple[int, float]] = []
        self._right = torch.zeros(num_images, dtype=torch.bool, device=device)
        self._learned = torch.zeros(num_images, dtype=torch.bool, device=device)
        self._forgotten = torch.zeros(num_images, dtype=torch.int32, device=device)

    @torch.no_grad()
    def present(self, index: Tensor, right: Tensor) -> None:
        """Record a batch: its images [B], and whether the training pass classified each correctly, bool [B]."""
        self._forgotten[index] += (self._right[index] & ~right).int()
        self._learned[index] |= right
        self._right[index] = right

    def after_step(self, step: int, end: int, model: nn.Module) -> None:
        """Measure the accuracy every so many iterations, and at the end."""
        if step % self.every == 0 or step == end:
            self.curve.append((step, self._measure(model)))

    def metrics(self) -> dict[str, float]:
        """forgetting_events: of an image, on average; forgettable_share: images forgotten at least once or never
        learned; never_learned_share: images that were wrong at every presentation."""
        forgettable = (self._forgotten > 0) | ~self._learned
        return {
            "forgetting_events": float(self._forgotten.double().mean()),
            "forgettable_share": float(forgettable.double().mean()),
            "never_learned_share": float((~self._learned).double().mean()),
        }

    def state(self) -> dict[str, Tensor]:
        """All that is needed to continue."""
        return {
            "right": self._right,
            "learned": self._learned,
            "forgotten": self._forgotten,
            "steps": torch.tensor([step for step, _ in self.curve], dtype=torch.int64),
            "accuracies": torch.tensor([accuracy for _, accuracy in self.curve], dtype=torch.float64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        for mine, name in ((self._right, "right"), (self._learned, "learned"), (self._forgotten, "forgotten")):
            mine.copy_(state[name])
        self.curve = list(zip(state["steps"].tolist(), state["accuracies"].tolist(), strict=True))
