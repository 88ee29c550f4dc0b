"""Training as the usual frameworks write it (open_lth and its forks): the baseline of the training benchmarks.

A torchvision data set behind a DataLoader, with PIL transforms one image at a time; NCHW; the mask multiplied
into the weights before each forward pass; torch.optim.SGD with its stock defaults.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from lthbench.data.spec import DATASETS, Augment
from lthbench.training.recipe import SGD

Batch = tuple[Tensor, Tensor]


class UsualTraining:
    """One training, a step at a time, of a copy of `model` in NCHW.

    Args:
        batches: pairs of images [B, C, H, W] and labels [B]; gone through again and again.
        mask: parameter name -> bool, True where a weight survives.
    """

    def __init__(
        self, model: nn.Module, batches: Iterable[Batch], optimizer: SGD, mask: Mapping[str, Tensor] | None = None
    ) -> None:
        self.model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
        self.masks = {name: m.float() for name, m in (mask or {}).items()}
        self.optimizer = torch.optim.SGD(self.model.parameters(), **optimizer.model_dump(exclude={"name"}))
        self.batches = batches
        self._coming: Iterator[Batch] = iter(())

    def step(self) -> tuple[Tensor, int]:
        """Train on the next batch; return its mean loss and how many images it had."""
        images, labels = self._next_batch()
        self.optimizer.zero_grad()
        self.model.train()
        loss = F.cross_entropy(self._forward(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), len(labels)

    def _next_batch(self) -> Batch:
        batch = next(self._coming, None)
        if batch is None:
            self._coming = iter(self.batches)
            batch = next(self._coming)
        return batch

    def _forward(self, images: Tensor) -> Tensor:
        self._apply_masks()
        return self.model(images)

    def _apply_masks(self) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self.masks:
                parameter.data *= self.masks[name]

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> tuple[float, float]:
        """Mean loss and accuracy (fraction right) of the masked network."""
        self.model.eval()
        loss = right = total = 0.0
        for images, labels in batches:
            logits = self._forward(images)
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            right += (logits.argmax(1) == labels).sum().item()
            total += len(labels)
        return loss / total, right / total


def usual_loader(
    name: str, root: Path, batch_size: int, augment: Augment | None = None, train: bool = True
) -> DataLoader[Batch]:
    """A DataLoader of `fashion-mnist` or `cifar10` as torchvision serves it, from the data folder `root`."""
    info = DATASETS[name]
    steps: list[object] = []
    if augment and augment.crop:
        steps.append(transforms.RandomCrop(info.image_shape[1:], padding=augment.crop))
    if augment and augment.flip:
        steps.append(transforms.RandomHorizontalFlip())
    steps += [transforms.ToTensor(), transforms.Normalize(info.mean, info.std)]
    assert info.download is not None
    images = getattr(datasets, info.download)(root, train=train, transform=transforms.Compose(steps))
    return DataLoader(images, batch_size, shuffle=train)
