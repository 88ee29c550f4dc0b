"""Whole files of bounded size, and JSON files with a schema: valid, or refused with the place of the error and a
cure."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

# The largest JSON file that is written, the record of an array of 1,000 jobs, has some MiB.
LARGEST_DOCUMENT = 64 << 20

Model = TypeVar("Model", bound=BaseModel)


def on_one_line(text: str) -> str:
    """Text that is safe to print on one line: files may contain newlines or terminal escape sequences."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class DocumentError(ValueError):
    """A file that does not hold what it should; the message names the file and the place in it, on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(on_one_line(message))


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes, without ever blocking on a pipe or a device.

    Raises:
        DocumentError: it is not a regular file, or larger.
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DocumentError(f"{path}: is not a regular file")
        size = os.fstat(descriptor).st_size
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(min(size, limit) + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise DocumentError(f"{path}: is larger than {limit:,} bytes")
    return content


def parse_document(content: bytes, model: type[Model], path: Path) -> Model:
    """Parse JSON strictly as a model: without type coercion or duplicate keys.

    Raises:
        DocumentError: it is not JSON, or not of the model's form.
    """
    try:
        json.loads(content, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path}: is not JSON that can be used ({error})") from error
    try:
        return model.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise DocumentError(f"{path}: {place + ': ' if place else ''}{first['msg']}") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


def read_document(path: Path, model: type[Model], limit: int = LARGEST_DOCUMENT) -> Model:
    """Read a JSON file as a model.

    Raises:
        DocumentError: it is not a regular file, too large, no JSON, or not of the model's form.
        OSError: it cannot be read.
    """
    return parse_document(read_bounded(path, limit), model, path)
