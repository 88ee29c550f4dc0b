"""Files that appear whole or not at all (no torch needed)."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes, scratch: Path | None = None) -> None:
    """Write a file under another name and rename it into place, so that no reader ever sees a part of it.

    Args:
        scratch: the folder, on the same disk, in which it is written. Once another process holds the lease it removes
            that folder, and nothing can be renamed into place any more.

    Raises:
        FileNotFoundError: the scratch folder is gone.
    """
    temporary = (scratch or path.parent) / f".{path.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # Python does not name the file of a failed write
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, scratch: Path | None = None) -> None:
    """Write a value as indented JSON, as `write_atomically` does."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode(), scratch)
