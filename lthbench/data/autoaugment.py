"""AutoAugment and RandAugment on a batch: images with the same operation go through torchvision together."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as F

from lthbench.data.augmentation_streams import Places
from lthbench.data.to_device import WithoutWaiting, to_device

RAND_BINS, AUTO_BINS = 31, 10

# Operation -> (its largest magnitude, whether its sign is random); translations as shares of the side. Cubuk et al.
# 2019 and 2020; the values and the pixels are torchvision's.
_RAND: dict[str, tuple[float, bool]] = {
    "Identity": (0, False),
    "ShearX": (0.3, True),
    "ShearY": (0.3, True),
    "TranslateX": (150 / 331, True),
    "TranslateY": (150 / 331, True),
    "Rotate": (30, True),
    "Brightness": (0.9, True),
    "Color": (0.9, True),
    "Contrast": (0.9, True),
    "Sharpness": (0.9, True),
    "Posterize": (4, False),
    "Solarize": (1, False),
    "AutoContrast": (0, False),
    "Equalize": (0, False),
}
_AUTO = {**_RAND, "Invert": (0, False)}

Choice = tuple[str, float]


def randaugment(
    images: Tensor, num_operations: int, magnitude: int, rng: np.random.Generator, places: Places | None = None
) -> Tensor:
    """Apply `num_operations` random operations of one magnitude to each image.

    Args:
        images: uint8 [B, 3, H, W].
        magnitude: bin 0 to 30 of each operation's range.
        places: the positions in the batch that these images have; None if they are the whole batch.

    Returns:
        uint8 [B, 3, H, W].

    Source: Cubuk et al. 2020 (1909.13719); pixels as torchvision.transforms.v2.RandAugment.
    """
    names = list(_RAND)
    places = places or Places(len(images))
    kinds = rng.integers(0, len(names), (num_operations, places.size))[:, places.own]
    coins = rng.random((num_operations, places.size))[:, places.own]
    for kind, coin in zip(kinds, coins, strict=True):
        choices = [
            (names[k], _magnitude(names[k], magnitude, RAND_BINS, bool(c <= 0.5), *images.shape[2:]))
            for k, c in zip(kind, coin, strict=True)
        ]
        images = _apply_each(images, choices)
    return images


def autoaugment(images: Tensor, policy: str, rng: np.random.Generator, places: Places | None = None) -> Tensor:
    """Apply a random sub-policy, two operations each with its probability, to each image.

    Args:
        images: uint8 [B, 3, H, W].
        policy: imagenet, cifar10 or svhn.
        places: as for `randaugment`.

    Returns:
        uint8 [B, 3, H, W].

    Source: Cubuk et al. 2019 (1805.09501); pixels as torchvision.transforms.v2.AutoAugment.
    """
    policies = _policies(policy)
    places = places or Places(len(images))
    chosen = rng.integers(0, len(policies), places.size)[places.own]
    luck, coins = rng.random((2, 2, places.size))[..., places.own]
    for turn in range(2):
        choices: list[Choice] = []
        for c, lucky, coin in zip(chosen, luck[turn], coins[turn], strict=True):
            name, probability, bin_ = policies[c][turn]
            magnitude = _magnitude(name, bin_ or 0, AUTO_BINS, bool(coin <= 0.5), *images.shape[2:])
            choices.append((name, magnitude) if lucky <= probability else ("Identity", 0.0))
        images = _apply_each(images, choices)
    return images


@cache
def _policies(policy: str) -> list[tuple[tuple[str, float, int | None], tuple[str, float, int | None]]]:
    return AutoAugment(AutoAugmentPolicy(policy)).policies


@cache
def _magnitude(name: str, bin_: int, bins: int, negative: bool, height: int, width: int) -> float:
    """The magnitude of a bin: from 0 to the operation's greatest (posterize keeps 8 to 4 bits, solarize 1 to 0)."""
    greatest, signed = _AUTO[name]
    greatest *= {"TranslateX": width, "TranslateY": height}.get(name, 1)
    # torch.linspace, in single precision, because torchvision takes its magnitudes from there.
    magnitude = float(torch.linspace(0.0, greatest, bins)[bin_])
    if name == "Posterize":
        return float(8 - round(magnitude))
    if name == "Solarize":
        return float(torch.linspace(1.0, 0.0, bins)[bin_])
    return -magnitude if signed and negative else magnitude


def _apply_each(images: Tensor, choices: list[Choice]) -> Tensor:
    """Apply to each image its operation, all images of one operation at once."""
    groups: dict[Choice, list[int]] = {}
    for i, choice in enumerate(choices):
        groups.setdefault(choice, []).append(i)
    out = images.clone()
    order = to_device(np.concatenate(list(groups.values())), images.device)
    each = order.split([len(members) for members in groups.values()])
    # Some of torchvision's operations send a few numbers to the device at each call.
    with WithoutWaiting() if images.is_cuda else nullcontext():
        for (name, magnitude), rows in zip(groups, each, strict=True):
            if name != "Identity":
                out[rows] = _OPERATIONS[name](images[rows], magnitude)
    return out


def _affine(x: Tensor, translate: tuple[float, float] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Tensor:
    center = [0.0, 0.0] if any(shear) else None
    return F.affine(
        x, 0.0, [int(t) for t in translate], 1.0, [math.degrees(math.atan(s)) for s in shear], center=center
    )


_OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "ShearX": lambda x, m: _affine(x, shear=(m, 0)),
    "ShearY": lambda x, m: _affine(x, shear=(0, m)),
    "TranslateX": lambda x, m: _affine(x, translate=(m, 0)),
    "TranslateY": lambda x, m: _affine(x, translate=(0, m)),
    "Rotate": lambda x, m: F.rotate(x, m),
    "Brightness": lambda x, m: F.adjust_brightness(x, 1 + m),
    "Color": lambda x, m: F.adjust_saturation(x, 1 + m),
    "Contrast": lambda x, m: F.adjust_contrast(x, 1 + m),
    "Sharpness": lambda x, m: F.adjust_sharpness(x, 1 + m),
    "Posterize": lambda x, m: F.posterize(x, int(m)),
    "Solarize": lambda x, m: F.solarize(x, 255 * m),
    "AutoContrast": lambda x, m: F.autocontrast(x),
    "Equalize": lambda x, m: F.equalize(x),
    "Invert": lambda x, m: F.invert(x),
}
