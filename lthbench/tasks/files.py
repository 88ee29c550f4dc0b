"""The files of a task's folder: weights and masks as safetensors, each written atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from lthbench.tasks.atomic import write_atomically

# Below so many bytes saved the zeros of a tensor are written out.
_WORTH_PACKING = 256


def write_tensors(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any] | None = None) -> None:
    """Write named tensors, with a JSON note in the header; of float32 ones zeros take one bit, as pruned weights are.

    Whatever is read back has the same bits: -0.0 is no zero here.
    """
    stored: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        whole = tensor.detach().to("cpu").contiguous()
        flat = whole.reshape(-1)
        present = flat.view(torch.int32) != 0 if whole.dtype == torch.float32 else None
        if present is None or 4 * (flat.numel() - int(present.sum())) < flat.numel() // 8 + _WORTH_PACKING:
            stored[name] = whole
        else:
            shapes[name] = list(whole.shape)
            stored[name] = flat[present]
            stored[f"present:{name}"] = torch.from_numpy(np.packbits(present.numpy()))
    metadata = {"note": json.dumps(note or {}), "packed": json.dumps(shapes)}
    write_atomically(path, save(stored, metadata=metadata))


def read_tensors(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote: the tensors and the note."""
    with safe_open(path, framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata() or {}
    for name, shape in json.loads(metadata.get("packed", "{}")).items():
        whole = torch.zeros(shape)
        flat = whole.view(-1)
        bits = np.unpackbits(stored.pop(f"present:{name}").numpy(), count=flat.numel())
        flat[torch.from_numpy(bits).bool()] = stored[name]
        stored[name] = whole
    tensors = {name: tensor.to(device) for name, tensor in stored.items()}
    return tensors, json.loads(metadata.get("note", "{}"))


def write_mask(path: Path, mask: Mapping[str, Tensor]) -> None:
    """Write a mask, 1 bit a weight."""
    packed = {name: torch.from_numpy(np.packbits(m.cpu().numpy().reshape(-1))) for name, m in mask.items()}
    write_tensors(path, packed, {"shapes": {name: list(m.shape) for name, m in mask.items()}})


def read_mask(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read a mask as bool tensors, True where a weight survives."""
    packed, note = read_tensors(path)
    mask = {}
    for name, shape in note["shapes"].items():
        bits = np.unpackbits(packed[name].numpy(), count=int(np.prod(shape)))
        mask[name] = torch.from_numpy(bits).bool().reshape(shape).to(device)
    return mask


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes of tensors, in the order of their names."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().to("cpu").contiguous()
        sha.update(f"{name}:{t.dtype}:{tuple(t.shape)};".encode())
        sha.update(t.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
