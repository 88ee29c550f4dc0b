"""The embedded default: Fashion-MNIST images as lossless WebP sheets, made by ci/embed_fashion_mnist.py."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

from lthbench.data.error import DataError
from lthbench.documents import read_document

FOLDER = Path(__file__).parent / "embedded"
NAME = "fashion-mnist-10k"
SIDE = 28
COLUMNS = 50


class _Split(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    sheets: list[str]
    sha256: str
    labels: str


class _Manifest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: str
    train: _Split
    test: _Split


def read_split(split: str, folder: Path = FOLDER) -> tuple[np.ndarray, np.ndarray]:
    """Read one split of the embedded images.

    Returns:
        images uint8 [N, 28, 28] and labels int64 [N], in the order of the original files.

    Raises:
        DataError: a file is missing or its pixels have another checksum than the manifest's.
    """
    again = "reinstall lthbench"
    try:
        whole = read_document(folder / "manifest.json", _Manifest)
        manifest = whole.train if split == "train" else whole.test
        # A sheet of 2,500 images has 2 million pixels; Pillow's guard against decompression bombs stays on.
        sheets = [_tiles(np.asarray(Image.open(folder / name).convert("L"))) for name in manifest.sheets]
        images = np.concatenate(sheets)
        labels = np.array([int(digit) for digit in manifest.labels], np.int64)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{NAME}: {folder} cannot be read ({error}); {again}") from error
    if len(images) != len(labels):
        raise DataError(f"{NAME}: {folder} holds {len(images)} {split} images, expected {len(labels)}; {again}")
    in_file_order = np.empty_like(images)
    in_file_order[np.argsort(labels, kind="stable")] = images
    digest = hashlib.sha256(in_file_order.tobytes()).hexdigest()
    if digest != manifest.sha256:
        found = f"the {split} pixels in {folder} have SHA-256 {digest}"
        raise DataError(f"{NAME}: {found}, expected {manifest.sha256}; {again}")
    return in_file_order, labels


def _tiles(sheet: np.ndarray) -> np.ndarray:
    """Cut a sheet [rows * 28, 50 * 28] into its images [rows * 50, 28, 28], row by row."""
    rows = sheet.shape[0] // SIDE
    return sheet.reshape(rows, SIDE, COLUMNS, SIDE).transpose(0, 2, 1, 3).reshape(-1, SIDE, SIDE)
