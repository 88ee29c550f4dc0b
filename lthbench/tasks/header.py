"""The header of the safetensors files of a task: a JSON text before the tensors (no torch needed)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# Of several entries of metadata safetensors writes any first; of one, equal contents give equal files.
ENTRY = "lthbench"
_LARGEST = 100 << 20  # as safetensors has it


def metadata(note: dict[str, Any], packed: dict[str, list[int]]) -> dict[str, str]:
    """The metadata that safetensors is to write: a note, and the shapes of tensors that are packed."""
    return {ENTRY: json.dumps({"note": note, "packed": packed})}


def parse_header(content: bytes) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The note and the shapes of packed tensors, from a file's first bytes.

    Raises:
        ValueError, KeyError, TypeError: they are of another form.
    """
    size = int.from_bytes(content[:8], "little")
    found = json.loads(json.loads(content[8 : 8 + size])["__metadata__"][ENTRY])
    return found["note"], found["packed"]


def read_note(path: Path) -> dict[str, Any]:
    """The note of a file, whose tensors are not read.

    Raises:
        ValueError, KeyError, TypeError: it is no file of a task.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(8)
        if (size := int.from_bytes(head, "little")) > _LARGEST:
            raise ValueError(f"{path}: has no header")
        return parse_header(head + file.read(size))[0]
