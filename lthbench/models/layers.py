"""The names of the layers of the paper's networks, without building any (no torch here).

Suites name layers, and are validated in a fraction of the time that importing torch takes. Each function gives the
layers whose weights pruning may touch, in parameter order, the stem first and the output layer last.
"""

from __future__ import annotations

LENET = ("fc1", "fc2", "fc")

# Convolutions of each stage of a VGG, by depth (Simonyan & Zisserman 2015, table 1).
VGG_STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
# Blocks of each stage, and convolutions of a block, by depth.
_RESNET_IMAGENET = {18: ((2, 2, 2, 2), 2), 50: ((3, 4, 6, 3), 3)}


def conv(depth: int) -> tuple[str, ...]:
    """Those of Conv-2, -4 and -6."""
    return (*(f"convs.{i}" for i in range(depth)), "fc1", "fc2", "fc")


def resnet(depth: int) -> tuple[str, ...]:
    """Those of a CIFAR ResNet of 6n + 2 layers."""
    names = ["conv"]
    stage = (depth - 2) // 6
    for block in range(3 * stage):
        names += [f"blocks.{block}.conv1", f"blocks.{block}.conv2"]
        if block in (stage, 2 * stage):
            names.append(f"blocks.{block}.shortcut.0")
    return (*names, "fc")


def vgg(depth: int) -> tuple[str, ...]:
    """Those of VGG-11, -16 and -19."""
    names, position = [], 0
    for convolutions in VGG_STAGES[depth]:
        for _ in range(convolutions):
            names.append(f"layers.{position}")
            position += 3  # normalisation and ReLU follow
        position += 1  # pooling
    return (*names, "fc")


def resnet_imagenet(depth: int) -> tuple[str, ...]:
    """Those of torchvision's ResNet-18 and -50."""
    names, (stages, convolutions) = ["conv1"], _RESNET_IMAGENET[depth]
    for stage, blocks in enumerate(stages, 1):
        for block in range(blocks):
            names += [f"layer{stage}.{block}.conv{i}" for i in range(1, convolutions + 1)]
            if block == 0 and (convolutions == 3 or stage > 1):
                names.append(f"layer{stage}.0.downsample.0")
    return (*names, "fc")


def swin(depths: tuple[int, ...]) -> tuple[str, ...]:
    """Those of a Swin transformer with so many blocks in each stage."""
    names = ["features.0.0"]
    for stage, blocks in enumerate(depths):
        if stage:
            names.append(f"features.{2 * stage}.reduction")
        for block in range(blocks):
            at = f"features.{2 * stage + 1}.{block}"
            names += [f"{at}.attn.qkv", f"{at}.attn.proj", f"{at}.mlp.0", f"{at}.mlp.3"]
    return (*names, "head")
