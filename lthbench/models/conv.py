"""Conv-2, Conv-4 and Conv-6: small VGGs without normalisation (Frankle & Carbin 2019, figure 2)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Conv(nn.Module):
    """Pooled pairs of 3x3 convolutions (width, 2 width, 4 width channels), then two hidden layers of 256."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        in_channels, height, side = image_shape
        self.convs = nn.ModuleList()
        for i in range(depth):
            out_channels = width * 2 ** (i // 2)
            self.convs.append(nn.Conv2d(in_channels, out_channels, 3, padding=1))
            in_channels = out_channels
        shrink = 2 ** (depth // 2)
        hidden = 4 * width
        self.fc1 = nn.Linear(in_channels * (height // shrink) * (side // shrink), hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, num_classes]."""
        for i, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            if i % 2 == 1:
                x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc(x)
