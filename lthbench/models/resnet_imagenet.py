"""ResNet-18 and -50 from torchvision, with a stem that keeps the resolution of small images."""

from __future__ import annotations

from torch import nn
from torchvision.models import ResNet, resnet18, resnet50

from lthbench.models.resnet import conv3x3
from lthbench.models.spec import SMALL_SIDE


def resnet_imagenet(image_shape: tuple[int, int, int], num_classes: int, width: int, depth: int) -> ResNet:
    """Make torchvision's ResNet; up to 64 pixels a side with a 3x3 stem of stride 1 and no pooling behind it.

    Its width is always 64 (`any_width` of its rows).
    """
    model = {18: resnet18, 50: resnet50}[depth](num_classes=num_classes)
    channels, height, width = image_shape
    if max(height, width) <= SMALL_SIDE:
        model.conv1 = conv3x3(channels, 64)
        model.maxpool = nn.Identity()
    elif channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    return model
