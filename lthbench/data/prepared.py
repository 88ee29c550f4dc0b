"""Prepared arrays, mapped into memory and verified against their manifest."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lthbench.data.error import DataError, missing
from lthbench.data.image_folder import CMC_ID, class_list_id
from lthbench.data.prepare import MANIFEST, VERSION, folder_of
from lthbench.data.spec import DATASETS
from lthbench.documents import DocumentError, read_document

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PreparedSplit(BaseModel):
    """What the manifest says of a split: how many images, and checksums of labels and chunks of images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=0)]
    labels_sha256: Sha256
    chunks_sha256: list[Sha256]


class Manifest(BaseModel):
    """What a preparation wrote (`lthbench.data.prepare`).

    Attributes:
        side: of the stored images, in pixels.
        chunk_images: the number of images that share a checksum.
        skipped: kind of files among the images that are not images -> how many.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    side: Annotated[int, Field(ge=1)]
    chunk_images: Annotated[int, Field(ge=1, lt=1 << 31)]
    pillow: str = ""
    class_list: str
    classes: list[str]
    skipped: dict[str, int] = {}
    train: PreparedSplit
    test: PreparedSplit

    @model_validator(mode="after")
    def _every_image_has_a_checksum(self) -> Manifest:
        for split in (self.train, self.test):
            if len(split.chunks_sha256) != -(-split.count // self.chunk_images):
                raise ValueError(
                    f"{len(split.chunks_sha256)} checksums are not those of {split.count:,} images, "
                    f"of which {self.chunk_images:,} share one"
                )
        return self


# As numpy writes it (numpy.lib.format), version 1.0.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"\{'descr': '(?P<dtype>[<>|][a-z][0-9]+)', 'fortran_order': False, 'shape': \((?P<shape>[0-9, ]*)\), \} *\n",
    re.DOTALL,
)
_LARGEST_HEADER = 10 + (1 << 16)

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
    if not (folder / MANIFEST).exists():
        tree = root / info.folder
        if (tree / "train").is_dir():
            raise DataError(f"{name}: {tree} is not prepared yet; {_again(name)}")
        raise missing(name, tree, f"the images, in {info.num_classes} folders a split")
    manifest = _read_manifest(name, folder, class_list)
    entry, side, size = manifest.train if split == "train" else manifest.test, manifest.side, manifest.chunk_images
    count = entry.count
    expected = info.num_train if split == "train" else info.num_test
    if count != expected and not (class_list and split == "train"):
        raise DataError(f"{name}: {folder} has {count:,} {split} images, expected {expected:,}; {_anew(name, folder)}")
    pixels = _map(name, folder / f"{split}.npy", (count, side, side, 4), np.uint8)
    labels = np.array(_map(name, folder / f"{split}_labels.npy", (count,), np.int64))
    if hashlib.sha256(labels.data).hexdigest() != entry.labels_sha256:
        raise DataError(
            f"{name}: {folder / f'{split}_labels.npy'} differs from its checksum in {MANIFEST}; {_anew(name, folder)}"
        )
    chunks = np.arange(len(entry.chunks_sha256))
    if not full and pixels.nbytes > FULL_CHECK_BYTES:
        chunks = np.unique(np.linspace(0, len(chunks) - 1, 8).astype(int))
    for chunk in chunks:
        part = pixels[chunk * size : (chunk + 1) * size]
        if hashlib.sha256(part.data).hexdigest() != entry.chunks_sha256[chunk]:
            where = f"images {chunk * size} to {chunk * size + len(part) - 1} of {folder / f'{split}.npy'}"
            raise DataError(f"{name}: {where} differ from their checksum in {MANIFEST}; {_anew(name, folder)}")
    return pixels.view(np.int32)[..., 0], labels


def skipped_in(folder: Path) -> dict[str, int]:
    """What the preparation of a folder skipped; empty if its manifest does not say."""
    try:
        return read_document(folder / MANIFEST, Manifest).skipped
    except (OSError, DocumentError):
        return {}


def _read_manifest(name: str, folder: Path, class_list: str | None) -> Manifest:
    info = DATASETS[name]
    try:
        manifest = read_document(folder / MANIFEST, Manifest)
    except OSError as error:
        raise DataError(f"{name}: {folder / MANIFEST}: {error.strerror}; {_anew(name, folder)}") from error
    except DocumentError as error:
        raise DataError(f"{name}: {error}; {_anew(name, folder)}") from error
    if name == "imagenet100" and class_list is None:
        class_list = CMC_ID
    expected = {
        "name": name,
        "version": VERSION,
        "side": info.stored_side,
        "class_list": class_list or class_list_id(manifest.classes),
    }
    for key, value in expected.items():
        found = getattr(manifest, key)
        if found != value:
            raise DataError(
                f"{name}: {folder / MANIFEST} says {key} {found!r}, expected {value!r}; {_anew(name, folder)}"
            )
    return manifest


def _map(name: str, path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Map a .npy file copy-on-write: the file itself is never changed.

    Its header is matched against the one form it may have, and not evaluated, as `numpy.load` does.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise OSError("there is no such file")
        with path.open("rb") as file:
            header = _NPY.match(file.read(_LARGEST_HEADER))
        if header is None or header.end() != 10 + int.from_bytes(header["length"], "little"):
            raise ValueError("it has not the header of an array")
        found = f"{np.dtype(header['dtype'].decode())} ({header['shape'].decode()})"
        expected = f"{np.dtype(dtype)} {shape}"
        if found == expected:
            return np.memmap(path, dtype, "c", header.end(), shape)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{name}: {path} cannot be read ({error}); {_anew(name, path.parent)}") from error
    raise DataError(f"{name}: {path} holds {found}, expected {expected}; {_anew(name, path.parent)}")


def _again(name: str) -> str:
    return f"run `lthbench data prepare {name} --data DIR`"


def _anew(name: str, folder: Path) -> str:
    return f"delete {folder}, then {_again(name)}"
