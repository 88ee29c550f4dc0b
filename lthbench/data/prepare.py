"""Decode and resize a folder of images once, so that training never decodes a JPEG.

DATA/prepared/<name>/ then holds, for each split, <split>.npy (uint8 [N, S, S, 4]: R, G, B, 0) and
<split>_labels.npy (int64 [N]), to be mapped into memory, and manifest.json: counts, class names, checksums.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from lthbench.data.error import DataError
from lthbench.data.image_folder import Tree, class_list_id, read_class_list, scan
from lthbench.data.spec import DATASETS
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
        workers: threads that decode; None is one a core. Pillow decodes outside Python's lock.
        on_progress: called with (images done, images in all) from time to time.

    Returns:
        The folder of the prepared arrays.

    Raises:
        DataError: the images are missing, partial or corrupt.
    """
    info = DATASETS[name]
    if info.kind != "tree":
        raise DataError(f"{name}: needs no preparation: it is read in its original format")
    if class_list is not None and name != "imagenet100":
        raise DataError(f"{name}: has no choice of classes; leave out the class list")
    other = class_list_id(read_class_list(class_list, info.num_classes)) if class_list else None
    target = folder_of(name, root, other)
    if (target / MANIFEST).is_file():
        return target
    tree = scan(name, root, class_list)
    partial = target.with_name(target.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with Lease(target.with_name(target.name + ".lease")):  # wait for another process that prepares it
        if not (target / MANIFEST).is_file():
            partial.mkdir(exist_ok=True)
            manifest = _prepare(name, tree, partial, workers or os.cpu_count() or 1, on_progress)
            _write_atomically(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
            partial.rename(target)
    return target


def _prepare(name: str, tree: Tree, folder: Path, workers: int, on_progress: Progress | None) -> dict[str, Any]:
    """Write the arrays into `folder` and return their manifest."""
    side = DATASETS[name].stored_side
    size = max(1, CHUNK_BYTES // (4 * side * side))
    splits = {"train": tree.train, "test": tree.test}
    journal = _Journal(folder, _fingerprint(splits, side, size))
    chunks = [(s, start) for s, images in splits.items() for start in range(0, len(images), size)]
    total = sum(map(len, splits.values()))
    files = {split: _create(folder / f"{split}.npy", (len(images), side, side, 4)) for split, images in splits.items()}

    def one(split: str, start: int) -> int:
        images = splits[split][start : start + size]
        pixels = np.zeros((len(images), side, side, 4), np.uint8)
        for target, (file, _) in zip(pixels, images, strict=True):
            target[..., :3] = decode(name, file, side)
        path, offset = files[split]
        with path.open("r+b") as out:
            out.seek(offset + start * pixels[0].nbytes)
            out.write(pixels.tobytes())
            out.flush()
            os.fsync(out.fileno())
        journal.add(split, start, hashlib.sha256(pixels.data).hexdigest())
        return len(images)

    missing = [chunk for chunk in chunks if chunk not in journal.done]
    done = total - sum(min(size, len(splits[s]) - start) for s, start in missing)
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
        "side": side,
        "chunk_images": size,
        "pillow": PIL.__version__,
        "class_list": class_list_id(tree.classes),
        "classes": tree.classes,
        "skipped": tree.skipped,
    }
    for split, images in splits.items():
        labels = np.array([label for _, label in images], np.int64)
        np.save(folder / f"{split}_labels.npy", labels, allow_pickle=False)
        manifest[split] = {
            "count": len(images),
            "labels_sha256": hashlib.sha256(labels.data).hexdigest(),
            "chunks_sha256": [journal.done[split, start] for start in range(0, len(images), size)],
        }
    journal.remove()
    return manifest


def decode(name: str, file: Path, side: int) -> np.ndarray:
    """Decode one image to uint8 [side, side, 3]: the shorter edge resized to `side`, then the centre.

    An image that already has this size is only decoded. Resizing is Pillow's antialiased bilinear, as in torchvision's
    Resize(side) and CenterCrop(side).

    Palettes and CMYK are converted to RGB, transparency is left out, and of several images the first is taken, as
    torchvision's ImageFolder does.

    Raises:
        DataError: the file cannot be read, is not an image or is a broken one, has more than 8 bits a channel, or is so
            long and narrow that resizing would make it huge.
    """
    try:
        # From memory, where a part that is said to be longer than the file takes no more than there is.
        content = io.BytesIO(read_bounded(file, _LARGEST_FILE))
        with Image.open(content, formats=("JPEG", "PNG")) as opened:
            if opened.mode.startswith(("I", "F")):  # converting these cuts all values above 255 to white
                raise DataError(f"{name}: {file} has more than 8 bits a channel; save it with 8")
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
    width, height = image.size
    if (width, height) == (side, side):
        return np.asarray(image)
    short = min(width, height)
    width, height = int(side * width / short), int(side * height / short)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


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


def _fingerprint(splits: dict[str, list[tuple[Path, int]]], side: int, size: int) -> str:
    """What a preparation depends on: its version, form, and every file with its label and size."""
    digest = hashlib.sha256(f"{VERSION} {side} {size}\n".encode())
    for split, images in splits.items():
        for file, label in images:
            digest.update(os.fsencode(f"{split} {label} {file} {file.stat().st_size}\n"))
    return digest.hexdigest()


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
