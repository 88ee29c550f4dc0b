"""The header of the safetensors files of a task: a JSON text before the tensors (no torch needed)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from lthbench.documents import DocumentError, parse_document

# Safetensors writes several metadata entries in any order; with a single one, equal contents give equal files.
ENTRY = "lthbench"
_LARGEST = 100 << 20  # as safetensors has it


class _Header(BaseModel):
    metadata: Annotated[dict[str, str], Field(alias="__metadata__")]


class _Entry(BaseModel):
    note: dict[str, Any]
    packed: dict[str, list[Annotated[int, Field(ge=0)]]]


def metadata(note: dict[str, Any], packed: dict[str, list[int]]) -> dict[str, str]:
    """The metadata that safetensors is to write: a note, and the shapes of tensors that are packed."""
    return {ENTRY: json.dumps({"note": note, "packed": packed})}


def parse_header(content: bytes, path: Path) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The note and the shapes of packed tensors, from a file's first bytes.

    Raises:
        DocumentError: they are of another form.
    """
    size = int.from_bytes(content[:8], "little")
    header = parse_document(content[8 : 8 + size], _Header, path)
    found = parse_document(header.metadata.get(ENTRY, "").encode(), _Entry, path)
    return found.note, found.packed


def read_note(path: Path) -> dict[str, Any]:
    """The note of a file, whose tensors are not read.

    Raises:
        DocumentError: it is not a file of a task.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(8)
        if (size := int.from_bytes(head, "little")) > _LARGEST:
            raise DocumentError(f"{path}: has no header")
        return parse_header(head + file.read(size), path)[0]
