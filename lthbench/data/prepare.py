"""Decode and resize a folder of images once, so that training never decodes a JPEG.

DATA/prepared/<name>/ then holds, for each split, <split>.npy (uint8 [N, S, S, 4]: R, G, B, 0; grey ones of own data
sets [N, H, W]) and <split>_labels.npy (int64 [N]), to be mapped into memory, and manifest.json: counts, class names,
checksums; of an own data set also its mean, deviation and the digest of its content.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from lthbench.data.datasets import DATASETS
from lthbench.data.error import DataError
from lthbench.data.image_folder import class_list_id, read_class_list, scan
from lthbench.documents import DocumentError, read_bounded
from lthbench.lease import Lease

# The largest ratio of an image's edges: with the shorter one resized to `side`, it becomes side x ratio pixels long.
_LARGEST_RATIO = 100
_LARGEST_FILE = 256 << 20

# Raise it when the pixels of a prepared image would change.
VERSION = 1
CHUNK_BYTES = 1 << 25
MANIFEST = "manifest.json"

Progress = Callable[[int, int], None]


def folder_of(name: str, root: Path, class_list: str | None = None) -> Path:
    """Return the folder of the prepared data set `name`; `class_list` is the id of a class list other than its own."""
    return root / "prepared" / (f"{name}-{class_list}" if class_list else name)


def prepare(
    name: str,
    root: Path,
    *,
    class_list: Path | None = None,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Prepare data set `name` below the data folder `root`; a preparation that was killed is resumed.

    Args:
        class_list: a file with other classes than the data set's own (imagenet100).
        workers: threads that decode; None is one per core. Pillow decodes outside Python's lock.
        on_progress: called with (images done, images in all) from time to time.

    Returns:
        The folder of the prepared arrays.

    Raises:
        DataError: the images are missing, partial or corrupt.
    """
    info = DATASETS[name]
    if info.kind == "own":
        raise DataError(f"{name}: is an own data set, which `lthbench data add` has prepared")
    if info.kind != "tree":
        raise DataError(f"{name}: needs no preparation: it is read in its original format")
    if class_list is not None and name != "imagenet100":
        raise DataError(f"{name}: has no choice of classes; leave out the class list")
    other = class_list_id(read_class_list(class_list, info.num_classes)) if class_list else None
    target = folder_of(name, root, other)
    if (target / MANIFEST).is_file():
        return target
    tree = scan(name, root, class_list)
    splits = {"train": tree.train, "test": tree.test}
    source = tree_source(name, tree.classes, splits, info.stored_side, tree.skipped)
    return prepare_from(target, name, source, workers=workers, on_progress=on_progress)


def prepare_from(
    target: Path,
    name: str,
    source: Source,
    *,
    more: Callable[[dict[str, Any], Path], dict[str, Any]] = lambda manifest, folder: {},
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Write the arrays of a source into a folder; one that another process writes is waited for.

    Args:
        more: called with the manifest and the folder of the arrays, returns what else the manifest says.
    """
    partial = target.with_name(target.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with Lease(target.with_name(target.name + ".lease")):  # wait for another process that prepares it
        if not (target / MANIFEST).is_file():
            partial.mkdir(exist_ok=True)
            manifest = _prepare(name, source, partial, workers or os.cpu_count() or 1, on_progress)
            manifest |= more(manifest, partial)
            _write_atomically(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
            partial.rename(target)
    return target


@dataclass(frozen=True)
class Source:
    """What a data set is prepared from.

    Attributes:
        labels: split -> int64 [N], places in `classes`.
        form: of an image as it is stored: (H, W) grey, or (H, W, 4).
        read: images of a split from a first to a last one, uint8 [n, *form]; called by several threads.
        fingerprint: of all that the pixels depend on.
        skipped: how many files and folders are no part of it, by name or pattern.
        origin: in words, with how the test split was taken.
    """

    classes: list[str]
    labels: dict[str, np.ndarray]
    form: tuple[int, ...]
    read: Callable[[str, int, int], np.ndarray]
    fingerprint: str
    skipped: dict[str, int]
    origin: str = ""


def tree_source(
    name: str,
    classes: list[str],
    splits: dict[str, list[tuple[Path, int]]],
    side: int | None,
    skipped: dict[str, int],
    *,
    origin: str = "",
    grey: bool = False,
) -> Source:
    """Files of images, each resized to `side` (None: as they are, all of one size) and stored grey or in colour."""
    width, height = (side, side) if side else image_size(name, splits["train"][0][0])
    form = (height, width) if grey else (height, width, 4)

    def read(split: str, start: int, stop: int) -> np.ndarray:
        images = splits[split][start:stop]
        pixels = np.zeros((len(images), *form), np.uint8)
        for target, (file, _) in zip(pixels, images, strict=True):
            if grey:
                target[...] = np.asarray(Image.fromarray(decode(name, file, side)).convert("L"))
            else:
                target[..., :3] = decode(name, file, side)
        return pixels

    digest = hashlib.sha256(f"{side} {grey}\n".encode())
    for split, images in splits.items():
        for file, label in images:
            digest.update(os.fsencode(f"{split} {label} {file} {file.stat().st_size}\n"))
    labels = {split: np.array([label for _, label in images], np.int64) for split, images in splits.items()}
    return Source(classes, labels, form, read, digest.hexdigest(), skipped, origin)


def content_digest(manifest: Mapping[str, Any], image_shape: tuple[int, ...]) -> str:
    """32 hex digits of SHA-256 of an own data set's images and labels, by the checksums of its manifest."""
    what = {"shape": image_shape, "chunk": manifest["chunk_images"], "classes": len(manifest["classes"])}
    content = json.dumps([what, manifest["train"], manifest["test"]], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def _prepare(name: str, source: Source, folder: Path, workers: int, on_progress: Progress | None) -> dict[str, Any]:
    """Write the arrays into `folder` and return their manifest."""
    size = max(1, CHUNK_BYTES // math.prod(source.form))
    counts = {split: len(labels) for split, labels in source.labels.items()}
    journal = _Journal(folder, hashlib.sha256(f"{VERSION} {size} {source.fingerprint}".encode()).hexdigest())
    chunks = [(s, start) for s, count in counts.items() for start in range(0, count, size)]
    total = sum(counts.values())
    files = {split: _create(folder / f"{split}.npy", (count, *source.form)) for split, count in counts.items()}

    def one(split: str, start: int) -> int:
        pixels = np.ascontiguousarray(source.read(split, start, start + size))
        path, offset = files[split]
        with path.open("r+b") as out:
            out.seek(offset + start * pixels[0].nbytes)
            out.write(pixels.tobytes())
            out.flush()
            os.fsync(out.fileno())
        journal.add(split, start, hashlib.sha256(pixels.data).hexdigest())
        return len(pixels)

    missing = [chunk for chunk in chunks if chunk not in journal.done]
    done = total - sum(min(size, counts[s] - start) for s, start in missing)
    if on_progress:
        on_progress(done, total)
    with ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(one, *chunk) for chunk in missing}
        try:
            while pending:
                finished, pending = wait(pending, timeout=1.0, return_when=FIRST_EXCEPTION)
                done += sum(future.result() for future in finished)
                if on_progress:
                    on_progress(done, total)
        finally:
            for future in pending:
                future.cancel()
    manifest: dict[str, Any] = {
        "name": name,
        "version": VERSION,
        "side": source.form[0],
        "chunk_images": size,
        "pillow": PIL.__version__,
        "class_list": class_list_id(source.classes),
        "classes": source.classes,
        "skipped": source.skipped,
    }
    for split, labels in source.labels.items():
        np.save(folder / f"{split}_labels.npy", labels, allow_pickle=False)
        manifest[split] = {
            "count": counts[split],
            "labels_sha256": hashlib.sha256(labels.data).hexdigest(),
            "chunks_sha256": [journal.done[split, start] for start in range(0, counts[split], size)],
        }
    journal.remove()
    return manifest


def image_size(name: str, file: Path) -> tuple[int, int]:
    """Width and height of an image, in pixels, by its header; raises DataError as `decode`."""
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as opened:
            return opened.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: {file} is not a complete JPEG or PNG image ({error}); replace it") from error


def decode(name: str, file: Path, side: int | None) -> np.ndarray:
    """Decode one image to uint8 [side, side, 3]: the shorter edge resized to `side`, then the centre.

    Without a side, and where it already has this size, it is only decoded.

    Palettes and CMYK are converted to RGB, transparency is left out, and of several images the first is taken, as
    torchvision's ImageFolder does.

    Raises:
        DataError: the file cannot be read, is not an image or is a broken one, has more than 8 bits per channel, or is
            so long and narrow that resizing would make it huge.
    """
    try:
        # From memory, where a part that is said to be longer than the file takes no more than there is.
        content = io.BytesIO(read_bounded(file, _LARGEST_FILE))
        with Image.open(content, formats=("JPEG", "PNG")) as opened:
            if opened.mode.startswith(("I", "F")):  # converting these cuts all values above 255 to white
                raise DataError(f"{name}: {file} has more than 8 bits per channel; save it with 8")
            if max(opened.size) > _LARGEST_RATIO * min(opened.size):
                shape = " x ".join(f"{edge:,}" for edge in opened.size)
                raise DataError(f"{name}: {file} has {shape} pixels, which is not a photograph; replace it")
            image = opened.convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name}: {file} is not a complete JPEG or PNG image (of another format); replace it"
        ) from error
    except DocumentError as error:
        raise DataError(f"{name}: {error}; replace it") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of Pillow
            raise DataError(f"{name}: {file} cannot be read ({error.strerror}); make it readable") from error
        raise DataError(f"{name}: {file} is not a complete JPEG or PNG image ({error}); replace it") from error
    return np.asarray(image if side is None else resize_shorter_edge(image, side))


def resize_shorter_edge(image: Image.Image, side: int) -> Image.Image:
    """An image with its shorter edge resized to `side`, cut to the central square.

    As torchvision's Resize(side) and CenterCrop(side), by Pillow's antialiased bilinear on whole numbers, which gives
    the same pixels on every machine.
    """
    width, height = image.size
    if (width, height) == (side, side):
        return image
    short = min(width, height)
    width, height = int(side * width / short), int(side * height / short)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return image.crop((left, top, left + side, top + side))


class _Journal:
    """Which chunks are on disk, with their checksums: one line each, appended after the chunk itself is written."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.done: dict[tuple[str, int], str] = {}
        self._path = folder / "journal.txt"
        lines = self._path.read_text().splitlines() if self._path.is_file() else []
        if not lines or lines[0] != fingerprint:
            # Other files, or another way to prepare them: nothing that is there can be used.
            shutil.rmtree(folder)
            folder.mkdir()
            _write_atomically(self._path, f"{fingerprint}\n".encode())
        for line in lines[1:] if lines and lines[0] == fingerprint else []:
            fields = line.split()
            if len(fields) == 3 and fields[1].isdecimal() and len(fields[2]) == 64:  # the last line may be cut off
                self.done[fields[0], int(fields[1])] = fields[2]
        self._file = self._path.open("ab")
        self._file.write(b"\n")

    def add(self, split: str, start: int, digest: str) -> None:
        """Record a chunk, in one write per line, so that lines of several threads do not interleave."""
        self._file.write(f"{split} {start} {digest}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.done[split, start] = digest

    def remove(self) -> None:
        """Delete the journal of a finished preparation."""
        self._file.close()
        self._path.unlink()


def _create(path: Path, shape: tuple[int, ...]) -> tuple[Path, int]:
    """Create a .npy file of zeros unless it exists; returns it with the offset of its first element."""
    if not path.is_file():
        temporary = path.with_suffix(".tmp")
        np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape).flush()
        temporary.rename(path)
    return path, path.stat().st_size - int(np.prod(shape))


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    temporary.rename(path)
