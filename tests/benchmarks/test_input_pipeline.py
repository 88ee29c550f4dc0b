"""Images per second of one augmented batch, against DataLoader with torchvision's PIL transforms."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from lthbench.data.images import ImageSet, pack
from lthbench.data.spec import DATASETS, Augment

BATCH, ROUNDS = 128, 9


class PilImages(Dataset[tuple[torch.Tensor, int]]):
    """CIFAR-10 as torchvision serves it: a PIL image each, transformed one at a time."""

    def __init__(self, raw: np.ndarray) -> None:
        self.raw = raw.transpose(0, 2, 3, 1)
        info = DATASETS["cifar10"]
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(info.mean, info.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.raw[i])), i % 10


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def test_batches_with_crop_and_flip(benchmark) -> None:  # type: ignore[no-untyped-def]
    raw = np.random.default_rng(0).integers(0, 256, (50_000, 3, 32, 32), dtype=np.uint8)
    info = DATASETS["cifar10"]
    ours = ImageSet(pack(raw), torch.zeros(len(raw), dtype=torch.int64), info.mean, info.std)
    theirs = iter(DataLoader(PilImages(raw), BATCH, shuffle=True))
    rng = np.random.default_rng(0)
    augment = Augment(crop=4, flip=True)

    def one_batch() -> torch.Tensor:
        index = torch.from_numpy(rng.integers(0, len(raw), BATCH))
        return ours.batch(index, augment, rng)

    times = [(seconds(one_batch), seconds(lambda: next(theirs))) for _ in range(ROUNDS + 1)][1:]
    mine, baseline = (statistics.median(t) for t in zip(*times, strict=True))
    rates = f"{BATCH / mine:,.0f} images/s, DataLoader + PIL {BATCH / baseline:,.0f}"
    print(f"\n{torch.get_num_threads()} threads: {rates}, ratio {baseline / mine:.1f}")
    benchmark(one_batch)
