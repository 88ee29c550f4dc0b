"""LeNet-300-100, the fully connected network of LeCun et al. 1998."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet(nn.Module):
    """Two hidden layers of 3 * width and width units, ReLU, and the output layer `fc`."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(math.prod(image_shape), 3 * width)
        self.fc2 = nn.Linear(3 * width, width)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, num_classes]."""
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc(x)
