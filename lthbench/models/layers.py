"""The names of the weights that pruning may touch, as in the networks of `build`, without building any (no torch here).

Suites name layers, and are validated in a fraction of the time that importing torch takes.
"""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.models.spec import ModelSpec

# Convolutions of each stage of a VGG, blocks of each stage of the others.
_STAGES = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
    "resnet18": (2, 2, 2, 2),
    "resnet50": (3, 4, 6, 3),
    "swin-small64": (2, 6, 4),
    "swin-t": (2, 2, 6, 2),
}


def layer_names(spec: ModelSpec, image_shape: tuple[int, int, int], num_classes: int) -> list[str]:
    """The prunable weights of a model in parameter order, the stem first and the output layer last.

    A plugin's model is made for such images and classes, which the names of the others do not depend on.
    """
    if spec.is_own:
        return spec.own_facts(image_shape, num_classes).layers
    layers = {
        "lenet": lambda spec: iter(("fc1", "fc2", "fc")),
        "conv": lambda spec: iter((*(f"convs.{i}" for i in range(spec.info.depth)), "fc1", "fc2", "fc")),
        "resnet": _resnet,
        "vgg": _vgg,
        "resnet_imagenet": _resnet_imagenet,
        "swin": _swin,
    }[spec.info.family]
    return [f"{name}.weight" for name in layers(spec)]


def _resnet(spec: ModelSpec) -> Iterator[str]:
    yield "conv"
    stage = (spec.info.depth - 2) // 6
    for block in range(3 * stage):
        yield from (f"blocks.{block}.conv1", f"blocks.{block}.conv2")
        if block in (stage, 2 * stage):
            yield f"blocks.{block}.shortcut.0"
    yield "fc"


def _vgg(spec: ModelSpec) -> Iterator[str]:
    position = 0
    for convolutions in _STAGES[spec.name]:
        for _ in range(convolutions):
            yield f"layers.{position}"
            position += 3  # behind it normalisation and ReLU
        position += 1  # pooling
    yield "fc"


def _resnet_imagenet(spec: ModelSpec) -> Iterator[str]:
    yield "conv1"
    wide = spec.name == "resnet50"
    for stage, blocks in enumerate(_STAGES[spec.name], 1):
        for block in range(blocks):
            yield from (f"layer{stage}.{block}.conv{i}" for i in range(1, 4 if wide else 3))
            if block == 0 and (wide or stage > 1):
                yield f"layer{stage}.0.downsample.0"
    yield "fc"


def _swin(spec: ModelSpec) -> Iterator[str]:
    yield "features.0.0"
    for stage, blocks in enumerate(_STAGES[spec.name]):
        if stage:
            yield f"features.{2 * stage}.reduction"
        for block in range(blocks):
            yield from (
                f"features.{2 * stage + 1}.{block}.{part}" for part in ("attn.qkv", "attn.proj", "mlp.0", "mlp.3")
            )
    yield "head"
