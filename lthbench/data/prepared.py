"""Prepared arrays, mapped into memory and verified against their manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from lthbench.data.error import DataError, missing
from lthbench.data.prepare import MANIFEST, VERSION, folder_of
from lthbench.data.spec import DATASETS
from lthbench.data.tree import CMC_ID, class_list_id

# Above so many bytes loading verifies eight chunks of each array; `lthbench data check` verifies all.
FULL_CHECK_BYTES = 2 << 30


def read_split(
    name: str, root: Path, split: str, class_list: str | None = None, *, full: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Map one split of a prepared data set.

    Args:
        class_list: the id of another class list than the data set's own.
        full: verify every chunk, whatever the size.

    Returns:
        pixels int32 [N, S, S] (bytes R, G, B, 0; mapped, copy on write) and labels int64 [N].

    Raises:
        DataError: it is not prepared, was prepared otherwise, is partial, or differs from its manifest.
    """
    folder = folder_of(name, root, class_list)
    info = DATASETS[name]
    if not (folder / MANIFEST).is_file():
        tree = root / info.folder
        if (tree / "train").is_dir():
            raise DataError(f"{name}: {tree} is not prepared yet; {_again(name)}")
        raise missing(name, tree, f"the images, in {info.num_classes} folders a split")
    manifest = _read_manifest(name, folder, class_list)
    entry, side, size = manifest[split], manifest["side"], manifest["chunk_images"]
    count = entry["count"]
    expected = info.num_train if split == "train" else info.num_test
    if count != expected and not (class_list and split == "train"):
        raise DataError(f"{name}: {folder} has {count:,} {split} images, expected {expected:,}; {_anew(name, folder)}")
    pixels = _map(name, folder / f"{split}.npy", (count, side, side, 4), np.uint8)
    labels = np.array(_map(name, folder / f"{split}_labels.npy", (count,), np.int64))
    if hashlib.sha256(labels.data).hexdigest() != entry["labels_sha256"]:
        raise DataError(
            f"{name}: {folder / f'{split}_labels.npy'} differs from its checksum in {MANIFEST}; {_anew(name, folder)}"
        )
    chunks = np.arange(len(entry["chunks_sha256"]))
    if not full and pixels.nbytes > FULL_CHECK_BYTES:
        chunks = np.unique(np.linspace(0, len(chunks) - 1, 8).astype(int))
    for chunk in chunks:
        part = pixels[chunk * size : (chunk + 1) * size]
        if hashlib.sha256(part.data).hexdigest() != entry["chunks_sha256"][chunk]:
            where = f"images {chunk * size} to {chunk * size + len(part) - 1} of {folder / f'{split}.npy'}"
            raise DataError(f"{name}: {where} differ from their checksum in {MANIFEST}; {_anew(name, folder)}")
    return pixels.view(np.int32)[..., 0], labels


def skipped_in(folder: Path) -> dict[str, int]:
    """What the preparation of a folder skipped among the images; nothing where its manifest does not tell."""
    try:
        skipped: dict[str, int] = json.loads((folder / MANIFEST).read_text())["skipped"]
        return {str(kind): int(number) for kind, number in skipped.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _read_manifest(name: str, folder: Path, class_list: str | None) -> dict[str, Any]:
    info = DATASETS[name]
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        found = {key: manifest[key] for key in ("name", "version", "side", "class_list")}
        classes = manifest["classes"]
        for split in ("train", "test"):
            for key in ("count", "labels_sha256", "chunks_sha256"):
                manifest[split][key]
        manifest["chunk_images"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{name}: {folder / MANIFEST} cannot be read ({error!r}); {_anew(name, folder)}") from error
    if name == "imagenet100" and class_list is None:
        class_list = CMC_ID
    expected = {
        "name": name,
        "version": VERSION,
        "side": info.stored_side,
        "class_list": class_list or class_list_id(classes),
    }
    for key, value in expected.items():
        if found[key] != value:
            raise DataError(
                f"{name}: {folder / MANIFEST} says {key} {found[key]!r}, expected {value!r}; {_anew(name, folder)}"
            )
    return manifest


def _map(name: str, path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Map a .npy file without ever writing to it: changes would be this process's own."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{name}: {path} cannot be read ({error}); {_anew(name, path.parent)}") from error
    if array.shape != shape or array.dtype != dtype:
        found = f"{array.dtype} {array.shape}"
        raise DataError(f"{name}: {path} holds {found}, expected {np.dtype(dtype)} {shape}; {_anew(name, path.parent)}")
    return array


def _again(name: str) -> str:
    return f"run `lthbench data prepare {name} --data DIR`"


def _anew(name: str, folder: Path) -> str:
    return f"delete {folder}, then {_again(name)}"
