"""MNIST's idx files, as torchvision leaves them under <name>/raw."""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path

import numpy as np

from lthbench.data.error import damaged, missing
from lthbench.data.spec import DATASETS

# SHA-256 of the unpacked files, made from the archives whose MD5 torchvision publishes.
_SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}


def read_split(name: str, root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split of `name` below the data folder `root`.

    Returns:
        images uint8 [N, H, W] and labels int64 [N], in file order.

    Raises:
        DataError: a file is missing, or is not the original.
    """
    info = DATASETS[name]
    count = info.num_train if split == "train" else info.num_test
    prefix = "train" if split == "train" else "t10k"
    folder = root / info.folder
    images = _read_original(name, folder / f"{prefix}-images-idx3-ubyte", (count, *info.image_shape[1:]))
    labels = _read_original(name, folder / f"{prefix}-labels-idx1-ubyte", (count,))
    return images, labels.astype(np.int64)


def read_idx(name: str, path: Path, rank: int, expected: tuple[int, ...] | None = None) -> np.ndarray:
    """Read an idx file of bytes: magic 0x0000 08 rank, the big-endian sizes, then the values.

    Args:
        rank: 3 of images, 1 of labels.
        expected: the sizes, where they are known before.

    Raises:
        DataError: the file is missing, or is no such file.
    """
    if not path.is_file():
        raise missing(name, path, f"the idx file of {'images' if rank == 3 else 'labels'}")
    start = 4 * (1 + rank)
    magic = struct.pack(">I", 0x0800 | rank)
    with path.open("rb") as file:
        header = file.read(start)
        if not header.startswith(magic) or len(header) < start:
            raise damaged(
                name, path, f"begins with {header[:4].hex() or 'nothing'}", f"the idx header {magic.hex()} and sizes"
            )
        sizes = struct.unpack(f">{rank}I", header[4:])
        if expected is not None and sizes != expected:
            raise damaged(name, path, f"has the sizes {_product(sizes)}", _product(expected))
        values = file.read()
    if len(values) != math.prod(sizes):
        raise damaged(name, path, f"has {start + len(values)} bytes", f"{start + math.prod(sizes)} ({_product(sizes)})")
    return np.frombuffer(values, np.uint8).reshape(sizes)


def _read_original(name: str, path: Path, sizes: tuple[int, ...]) -> np.ndarray:
    """Read one of the files that torchvision publishes, which is verified by its digest."""
    values = read_idx(name, path, len(sizes), sizes)
    header = struct.pack(f">{1 + len(sizes)}I", 0x0800 | len(sizes), *sizes)
    digest = hashlib.sha256(header + values.tobytes()).hexdigest()
    if digest != _SHA256[name][path.name]:
        raise damaged(name, path, f"has SHA-256 {digest}", f"the original's {_SHA256[name][path.name]}")
    return values


def _product(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
