"""Prepared arrays, mapped into memory and verified against their manifest."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lthbench.data.datasets import DATASETS
from lthbench.data.error import DataError, cure, missing
from lthbench.data.image_folder import CMC_ID, class_list_id
from lthbench.data.prepare import MANIFEST, VERSION, content_digest, folder_of
from lthbench.documents import DocumentError, read_document

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PreparedSplit(BaseModel):
    """What the manifest says of a split: how many images, and checksums of labels and chunks of images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Annotated[int, Field(ge=0)]
    labels_sha256: Sha256
    chunks_sha256: list[Sha256]


class OwnFacts(BaseModel):
    """What is known of an own data set by its preparation alone, as in `DataInfo`; `fingerprint` is its source's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_shape: tuple[Literal[1, 3], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    balanced: bool
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    fingerprint: str
    origin: str


class Manifest(BaseModel):
    """What a preparation wrote (`lthbench.data.prepare`).

    Attributes:
        side: of the stored images, in pixels.
        chunk_images: the number of images that share a checksum.
        skipped: kind of files among the images that are not images -> how many.
        own: of an own data set.
        resized_from: of resized images, what they were made of (`lthbench.data.image_sizes`).
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
    own: OwnFacts | None = None
    resized_from: str | None = None

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
        pixels int32 [N, S, S] (bytes R, G, B, 0; mapped, copy on write), or uint8 [N, H, W] of a grey own data set, and
        labels int64 [N].

    Raises:
        DataError: it is not prepared, was prepared otherwise, is partial, or differs from its manifest.
    """
    folder, info = folder_of(name, root, class_list), DATASETS[name]
    manifest = _manifest_of(name, root, class_list)
    side, count = manifest.side, (manifest.train if split == "train" else manifest.test).count
    expected = info.num_train if split == "train" else info.num_test
    if count != expected and not (class_list and split == "train"):
        raise DataError(f"{name}: {folder} has {count:,} {split} images, expected {expected:,}; {_anew(name, folder)}")
    form: tuple[int, ...] = (side, side, 4)
    if manifest.own is not None:
        form = (*manifest.own.image_shape[1:], *([4] if manifest.own.image_shape[0] == 3 else []))
    return _read_arrays(manifest, folder, split, form, full=full)


def read_resized(name: str, folder: Path, split: str, side: int, made_of: str) -> tuple[np.ndarray, np.ndarray]:
    """Map one split of the resized images in a folder, which must have been made of what there is now.

    Returns:
        as `read_split`, but grey uint8 [N, side, side] of every grey data set.

    Raises:
        DataError: it is partial, differs from its manifest, or was made of something else.
    """
    try:
        manifest = read_document(folder / MANIFEST, Manifest)
    except (OSError, DocumentError) as error:
        raise DataError(f"{name}: {folder / MANIFEST} cannot be read ({error}); delete {folder}") from error
    if (manifest.name, manifest.version, manifest.side, manifest.resized_from) != (name, VERSION, side, made_of):
        raise DataError(f"{name}: {folder} was made of other images; delete it, and it is made again")
    form = (side, side) if DATASETS[name].image_shape[0] == 1 else (side, side, 4)
    return _read_arrays(manifest, folder, split, form)


def content_of(name: str, root: Path, class_list: str | None = None) -> str:
    """The digest of the images and labels of a prepared data set, by its manifest; raises DataError as `read_split`."""
    manifest = _manifest_of(name, root, class_list)
    return content_digest(manifest.model_dump(mode="json"), (manifest.side, manifest.side))


def _manifest_of(name: str, root: Path, class_list: str | None) -> Manifest:
    folder, info = folder_of(name, root, class_list), DATASETS[name]
    if not (folder / MANIFEST).exists():
        if info.kind == "own":
            raise DataError(f"{name}: {folder} is not there any more; {cure(name)}")
        tree = root / info.folder
        if (tree / "train").is_dir():
            raise DataError(f"{name}: {tree} is not prepared yet; {_again(name)}")
        raise missing(name, tree, f"the images, in {info.num_classes} folders a split")
    return _read_manifest(name, folder, class_list)


def _read_arrays(
    manifest: Manifest, folder: Path, split: str, form: tuple[int, ...], *, full: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Map images of a form, (H, W) or (H, W, 4), and read their labels; both are compared with their checksums."""
    name, size = manifest.name, manifest.chunk_images
    entry = manifest.train if split == "train" else manifest.test
    pixels = _map(name, folder / f"{split}.npy", (entry.count, *form), np.uint8)
    labels = np.array(_map(name, folder / f"{split}_labels.npy", (entry.count,), np.int64))
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
    return pixels.view(np.int32)[..., 0] if len(form) == 3 else pixels, labels


def skipped_in(folder: Path) -> dict[str, int]:
    """What the preparation of a folder skipped; empty if its manifest does not say."""
    try:
        return read_document(folder / MANIFEST, Manifest).skipped
    except (OSError, DocumentError):
        return {}


def read_own_manifest(path: Path) -> Manifest | None:
    """The manifest of an own data set; None where it is that of another kind.

    Raises:
        DataError: it cannot be read, is another version's, or does not agree with itself.
    """
    name = path.parent.name
    try:
        manifest = read_document(path, Manifest)
    except OSError as error:
        raise DataError(f"{name}: {path}: {error.strerror}; {_anew(name, path.parent)}") from error
    except DocumentError as error:
        raise DataError(f"{name}: {error}; {_anew(name, path.parent)}") from error
    own = manifest.own
    if own is None:
        return None
    if manifest.name != name or manifest.version != VERSION:
        raise DataError(f"{name}: {path} is of {manifest.name}, version {manifest.version}; {_anew(name, path.parent)}")
    num_channels = own.image_shape[0]
    content = content_digest(manifest.model_dump(mode="json"), own.image_shape)
    if own.digest != content or len(own.mean) != num_channels or len(own.std) != num_channels:
        raise DataError(f"{name}: {path} is not what was written; {_anew(name, path.parent)}")
    return manifest


def _read_manifest(name: str, folder: Path, class_list: str | None) -> Manifest:
    info = DATASETS[name]
    if info.kind == "own":
        found = read_own_manifest(folder / MANIFEST)
        if found is None or found.own is None or found.own.digest != info.digest:
            raise DataError(f"{name}: {folder} is another data set than when this process began; run it again")
        return found
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
    if name not in DATASETS or DATASETS[name].kind == "own":
        return cure(name)
    if DATASETS[name].kind != "tree":
        return "run it again"
    return f"run `lthbench data prepare {name} --data DIR`"


def _anew(name: str, folder: Path) -> str:
    return f"delete {folder}, then {_again(name)}"
