"""An own network, pruning criterion and experiment: `lthbench run my_suite.yaml --plugin my_models.py`."""

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.plugins import (
    ACCURACY,
    Cell,
    Experiment,
    Layer,
    Measurement,
    PrunedLevels,
    register_criterion,
    register_experiment,
    register_model,
)


@register_model("tiny-cnn", width=8)
class TinyCNN(nn.Module):
    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(image_shape[0], width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.dropout = nn.Dropout(0.1)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv1(x))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.fc(self.dropout(x.mean((2, 3))))


@register_criterion("taylor", gradient_images=100)
def taylor(layer: Layer) -> Tensor:
    """How much the loss would change without the weight, to first order (Molchanov et al. 2019, arXiv 1906.10771)."""
    return torch.abs(layer.weight * layer.gradient)


@register_experiment("untrained")
class Untrained(Experiment):
    """Tickets before any training: their masks on their initial weights, the output layer alone fitted."""

    variants: ClassVar = ("untrained ticket",)
    metrics: ClassVar = ACCURACY

    levels: PrunedLevels

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        for level in self.levels:
            ticket = cell.train(mask=cell.mask(level), noise=level, probe="estimated")
            yield Measurement(ticket, "untrained ticket", ACCURACY, level=level)
