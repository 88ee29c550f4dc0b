"""From which sources kernels are compiled. setup.py runs this file by itself, so it imports nothing of the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

# What the library of each device is compiled from, below csrc/.
_PARTS = {
    "cpu": ("*.h", "*.cpp", "common/*.h", "cpu/**/*.h", "cpu/**/*.cpp"),
    "cuda": ("*.h", "common/*.h", "cuda/**/*.h", "cuda/**/*.cpp", "cuda/**/*.cu"),
}


def digest(csrc: Path, kind: str) -> str:
    """Twelve hex digits that name the sources of the kernels for "cpu" or "cuda": SHA-256 of their names and texts."""
    whole = hashlib.sha256()
    for file in sorted(file for pattern in _PARTS[kind] for file in csrc.glob(pattern)):
        text = file.read_bytes()
        whole.update(f"{file.relative_to(csrc).as_posix()} {len(text)}\n".encode() + text)
    return whole.hexdigest()[:12]
