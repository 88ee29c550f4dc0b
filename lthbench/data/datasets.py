"""The data sets that suites can name, and the static facts of each (no torch here)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class DataInfo:
    """The static facts of one data set.

    Attributes:
        kind: the file of lthbench/data/ that reads it.
        folder: where its files lie, relative to the data folder (empty: inside the package).
        image_shape: (C, H, W).
        mean, std: per channel, over the train split's pixels in [0, 1].
        download: torchvision's class that fetches it, if any does.
        stored_side: height and width at which a folder of images is prepared; batches are of `image_shape`.
        balanced: whether every class has equally many images.
        digest: of the content of an own data set (`lthbench data add`), which is part of task keys; empty for others.
    """

    kind: Literal["sheets", "idx", "cifar", "tree", "own"]
    folder: str
    num_train: int
    num_test: int
    image_shape: tuple[int, int, int]
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str
    licence: str
    download: str | None = None
    stored_side: int = 0
    balanced: bool = True
    digest: str = ""

    @property
    def is_prepared(self) -> bool:
        """Whether its images are arrays in the data folder that a preparation wrote."""
        return self.kind in ("tree", "own")


_CIFAR_LICENCE = "none stated; cite Krizhevsky 2009"
_CIFAR10_MEAN, _CIFAR10_STD = (0.49140, 0.48216, 0.44653), (0.24703, 0.24349, 0.26159)
# As published by weiaicunzai/pytorch-cifar100, rounded.
_CIFAR100_MEAN, _CIFAR100_STD = (0.50708, 0.48655, 0.44092), (0.26733, 0.25644, 0.27615)

_TINY_MEAN, _TINY_STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)  # as in sanity-checking-pruning
_TINY_ORIGIN, _IMAGENET_TERMS = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "non-commercial research only"

DATASETS: dict[str, DataInfo] = {
    "fashion-mnist-10k": DataInfo(
        "sheets", "", 10_000, 2_000, (1, 28, 28), 10, (0.28668,), (0.35401,),
        "the first 1,000 + 200 images of each class of Fashion-MNIST, shipped inside the package", "MIT",
    ),
    "fashion-mnist": DataInfo(
        "idx", "FashionMNIST/raw", 60_000, 10_000, (1, 28, 28), 10, (0.28604,), (0.35302,),
        "https://github.com/zalandoresearch/fashion-mnist", "MIT", "FashionMNIST",
    ),
    "mnist": DataInfo(
        "idx", "MNIST/raw", 60_000, 10_000, (1, 28, 28), 10, (0.13066,), (0.30811,),
        "http://yann.lecun.com/exdb/mnist/", "usually given as CC BY-SA 3.0", "MNIST",
        balanced=False,
    ),
    "cifar10": DataInfo(
        "cifar", "cifar-10-batches-py", 50_000, 10_000, (3, 32, 32), 10, _CIFAR10_MEAN, _CIFAR10_STD,
        "https://www.cs.toronto.edu/~kriz/cifar.html", _CIFAR_LICENCE, "CIFAR10",
    ),
    "cifar100": DataInfo(
        "cifar", "cifar-100-python", 50_000, 10_000, (3, 32, 32), 100, _CIFAR100_MEAN, _CIFAR100_STD,
        "https://www.cs.toronto.edu/~kriz/cifar.html", _CIFAR_LICENCE, "CIFAR100",
    ),
    "cifar100-mini": DataInfo(
        "cifar", "cifar100-mini/cifar-100-python", 5_000, 1_000, (3, 32, 32), 100,
        _CIFAR100_MEAN, _CIFAR100_STD,
        "50 + 10 images of each class of CIFAR-100, for tests", _CIFAR_LICENCE,
    ),
    "tinyimagenet": DataInfo(
        "tree", "tiny-imagenet-200", 100_000, 10_000, (3, 64, 64), 200, _TINY_MEAN, _TINY_STD,
        _TINY_ORIGIN, _IMAGENET_TERMS, stored_side=64,
    ),
    "tinyimagenet-10pct": DataInfo(
        "tree", "tiny-imagenet-200c-10pct", 10_000, 2_000, (3, 64, 64), 200, _TINY_MEAN, _TINY_STD,
        "50 + 10 images of each class of Tiny-ImageNet, for tests", _IMAGENET_TERMS, stored_side=64,
    ),
    "tinyimagenet-20c": DataInfo(
        "tree", "tiny-imagenet-20c", 10_000, 1_000, (3, 64, 64), 20, _TINY_MEAN, _TINY_STD,
        "every tenth class of Tiny-ImageNet, for tests", _IMAGENET_TERMS, stored_side=64,
    ),
    # The counts are those of the classes that Tian et al. 2020 (CMC) chose; mean and deviation are ImageNet's.
    "imagenet100": DataInfo(
        "tree", "imagenet", 126_689, 5_000, (3, 224, 224), 100, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225),
        "https://image-net.org, classes of github.com/HobbitLong/CMC imagenet100.txt", _IMAGENET_TERMS,
        stored_side=256, balanced=False,
    ),
}  # fmt: skip


def data_root(root: Path | None) -> Path | None:
    """Return the data folder: `root`, or else that of LTHBENCH_DATA, or None."""
    if root is None and os.environ.get("LTHBENCH_DATA"):
        root = Path(os.environ["LTHBENCH_DATA"])
    return root.expanduser().resolve() if root is not None else None
