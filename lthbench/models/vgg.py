"""VGG-11, -16 and -19 with batch normalisation in the form used on CIFAR: one linear layer behind the convolutions."""

from __future__ import annotations

from torch import Tensor, nn

from lthbench.models.layers import VGG_STAGES
from lthbench.models.resnet import conv3x3


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, pooled between stages, a mean over the plane, and the output layer `fc`.

    A stage has 1, 2, 4, 8, 8 times the width.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        if depth not in VGG_STAGES:
            raise ValueError(f"VGG has a depth of {', '.join(map(str, VGG_STAGES))}, not {depth}")
        layers: list[nn.Module] = []
        in_channels = image_shape[0]
        for stage, num_convs in enumerate(VGG_STAGES[depth]):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(num_convs):
                out_channels = width * min(2**stage, 8)
                layers += [conv3x3(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU()]
                in_channels = out_channels
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, num_classes]."""
        x = self.layers(x)
        return self.fc(x.mean((2, 3)))
