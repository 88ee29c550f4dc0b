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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], note: Mapping[str, Any] | None = None) -> None:
    """Write named tensors, with a JSON note in the header."""
    cpu = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    write_atomically(path, save(cpu, metadata={"note": json.dumps(note or {})}))


def read_tensors(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote: the tensors and the note."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return tensors, json.loads((file.metadata() or {}).get("note", "{}"))


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
