"""The files of a task's folder: weights, masks and checkpoints as safetensors, each written atomically.

Equal tensors and notes give equal files, so that a file's digest tells whether the bits of two computations agree.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lthbench.documents import DocumentError, parse_document, read_bounded
from lthbench.tasks.atomic import write_atomically
from lthbench.tasks.header import metadata, parse_header
from lthbench.tasks.result import Artefact, read_artefact

# The zeros of a tensor are written out if packing would save fewer bytes than this.
_WORTH_PACKING = 256
_LARGEST = 64 << 30


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any] | None = None, scratch: Path | None = None
) -> Artefact:
    """Write named tensors, with a JSON note in the header; zeros of float32 tensors, as pruned weights, take one bit.

    What is read back has the same bits: -0.0 does not count as zero.

    Args:
        scratch: as for `write_atomically`.

    Returns:
        The file's size and digest.
    """
    stored: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        whole = tensor.detach().to("cpu").contiguous()
        flat = whole.reshape(-1)
        mask = flat.view(torch.int32) != 0 if whole.dtype == torch.float32 else None
        if mask is None or 4 * (flat.numel() - int(mask.sum())) < flat.numel() // 8 + _WORTH_PACKING:
            stored[name] = whole
        else:
            shapes[name] = list(whole.shape)
            stored[name] = flat[mask]
            stored[f"present:{name}"] = _to_bits(mask)
    content = save(stored, metadata=metadata(dict(note or {}), shapes))
    write_atomically(path, content, scratch)
    return Artefact.of(content)


def read_tensors(
    path: Path, device: torch.device | str = "cpu", artefact: Artefact | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote: the tensors, in the order of their names, and the note.

    Args:
        artefact: what was written; None skips the check.

    Raises:
        DocumentError: the file is not what was written, or holds no tensors.
    """
    content = read_bounded(path, _LARGEST) if artefact is None else read_artefact(path, artefact)
    try:
        stored = load(content)
        note, packed = parse_header(content, path)
        for name, shape in packed.items():
            bits = stored.pop(f"present:{name}")
            if math.prod(shape) > 8 * bits.numel():
                raise ValueError(f"{name} has fewer bits than weights")
            whole = torch.zeros(shape)
            flat = whole.view(-1)
            flat[_from_bits(bits, flat.numel())] = stored[name]
            stored[name] = whole
    except DocumentError:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        raise DocumentError(f"{path}: holds no tensors that can be read ({error})") from error
    return {name: stored[name].to(device) for name in sorted(stored)}, note


class _MaskNote(BaseModel):
    shapes: dict[str, list[Annotated[int, Field(ge=0)]]]


def write_mask(path: Path, mask: Mapping[str, Tensor], scratch: Path | None = None) -> Artefact:
    """Write a mask, 1 bit per weight."""
    packed = {name: _to_bits(m.cpu().reshape(-1)) for name, m in mask.items()}
    return write_tensors(path, packed, {"shapes": {name: list(m.shape) for name, m in mask.items()}}, scratch)


def read_mask(path: Path, device: torch.device | str = "cpu", artefact: Artefact | None = None) -> dict[str, Tensor]:
    """Read a mask as bool tensors, True where a weight survives; `artefact` as for `read_tensors`.

    Raises:
        DocumentError: the file is not what was written, or holds no mask.
    """
    packed, note = read_tensors(path, artefact=artefact)
    shapes = parse_document(json.dumps(note).encode(), _MaskNote, path).shapes
    mask = {}
    for name, shape in shapes.items():
        bits, count = packed.get(name), math.prod(shape)
        if bits is None or bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),):
            raise DocumentError(f"{path}: holds no mask of {shape} for {name}")
        mask[name] = _from_bits(bits, count).reshape(shape).to(device)
    return mask


# A mask in a file has a bit per weight, the first of eight in the highest bit of a byte, which is numpy's order. The
# words of the kernels (lthbench.ops.masks) have it in the lowest, in the order of vector instructions. Files keep their
# order, since results refer to them by digest. Everywhere else a mask is a bool tensor, so only this file knows the
# order of files.


def _to_bits(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.numpy(), bitorder="big"))


def _from_bits(bits: Tensor, numel: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(bits.numpy(), count=numel, bitorder="big")).bool()


def write_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any], scratch: Path | None = None
) -> None:
    """Write a training's state with its own digest in the note, since no result has the digest of a checkpoint."""
    write_tensors(path, tensors, {**note, "digest": _seal(tensors, note)}, scratch)


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_checkpoint` wrote.

    Raises:
        DocumentError: it is not what was written.
        OSError: it is not there, or cannot be read.
    """
    tensors, note = read_tensors(path)
    if note.pop("digest", None) != _seal(tensors, note):
        raise DocumentError(f"{path}: is not what was written: its digest is another")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, note


def _seal(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> str:
    text = json.dumps(note, sort_keys=True)
    return hashlib.sha256(f"{digest(tensors)} {text}".encode()).hexdigest()


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes of tensors, in the order of their names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().to("cpu").contiguous()
        sha.update(f"{name}:{t.dtype}:{tuple(t.shape)};".encode())
        sha.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
