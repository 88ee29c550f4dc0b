"""What takes seconds to find out is kept in a file whose name has all that it depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from lthbench.home import cache_folder
from lthbench.tasks.atomic import write_atomically

T = TypeVar("T")


def kept(kind: str, depends_on: Iterable[str], find: Callable[[], T], read: Callable[[Any], T]) -> T:
    """What was found out before, else what `find` gives: dataclasses, or what JSON has.

    Args:
        kind: the folder, in that of the user's cache.
        depends_on: texts; what was found with other ones is not taken.
        read: makes of JSON what `find` gives; what it fails at is damaged, and found out again.
    """
    if (folder := cache_folder()) is None:
        return find()
    file = folder / kind / f"{hashlib.sha256(chr(10).join(depends_on).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # none, or damaged
        return read(json.loads(file.read_text()))
    found = find()
    with contextlib.suppress(OSError):  # a folder that cannot be written costs time only
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(found, default=asdict).encode())
    return found


def digest_of(files: Iterable[Path]) -> str:
    """Of the texts of some files, in their order."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
