"""Preparing own data sets, and what is measured of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lthbench.data.error import DataError
from lthbench.data.prepare import MANIFEST, Progress, Source, content_digest, folder_of, prepare_from
from lthbench.data.prepared import read_own_manifest


def add_own(
    name: str, root: Path, source: Source, *, workers: int | None = None, on_progress: Progress | None = None
) -> Path:
    """Prepare an own data set `name` below the data folder; where it is there already, made of the same, nothing is.

    Raises:
        DataError: another set of this name is there, or its images cannot be read or are all of one colour.
    """
    target = folder_of(name, root)
    if not (target / MANIFEST).is_file():

        def more(manifest: dict[str, Any], folder: Path) -> dict[str, Any]:
            return {"own": own_facts(name, source, manifest, folder)}

        return prepare_from(target, name, source, more=more, workers=workers, on_progress=on_progress)
    there = read_own_manifest(target / MANIFEST)
    if there is None or there.own is None or there.own.fingerprint != source.fingerprint:
        raise DataError(f"{name}: {target} is another data set; choose another name, or delete it")
    return target


def own_facts(name: str, source: Source, manifest: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is measured of an own data set: mean and deviation of train pixels in [0, 1], and the content's digest."""
    channels = 1 if len(source.form) == 2 else 3
    histogram = np.zeros((channels, 256), np.int64)
    pixels = np.load(folder / "train.npy", mmap_mode="r", allow_pickle=False)
    for start in range(0, len(pixels), manifest["chunk_images"]):
        chunk = pixels[start : start + manifest["chunk_images"]].reshape(-1, 1 if channels == 1 else 4)
        for channel in range(channels):
            histogram[channel] += np.bincount(chunk[:, channel], minlength=256)
    levels, count = np.arange(256), histogram.sum(1)
    mean = (histogram @ levels) / count / 255
    deviation = np.sqrt(np.maximum((histogram @ levels**2) / count / 255**2 - mean**2, 0))
    if deviation.min() < 1e-3:
        raise DataError(f"{name}: a channel of the train images has one level alone; give images that differ")
    counts = np.bincount(source.labels["train"])
    tests = np.bincount(source.labels["test"], minlength=len(counts))
    return {
        "image_shape": (channels, *source.form[:2]),
        "mean": [round(float(m), 5) for m in mean],
        "std": [round(float(d), 5) for d in deviation],
        "balanced": len(set(counts.tolist())) == len(set(tests.tolist())) == 1,
        "digest": content_digest(manifest, (channels, *source.form[:2])),
        "fingerprint": source.fingerprint,
        "origin": source.origin,
    }
