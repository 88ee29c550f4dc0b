"""What this machine's processor and GPUs are, as its system reports them (no torch needed)."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

_GPUS = Path("/proc/driver/nvidia/gpus")


def cpuinfo() -> dict[str, str]:
    """What Linux reports of the first processor, by the names in /proc/cpuinfo; empty on other systems."""
    words: dict[str, str] = {}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return words
    for line in lines:
        name, _, value = line.partition(":")
        words.setdefault(name.strip(), value.strip())
    return words


def processor_name() -> str:
    """The processor's name as its vendor gives it."""
    return cpuinfo().get("model name", platform.machine())


def gpu_names() -> list[str]:
    """The names of the GPUs that NVIDIA's driver reports; none where CUDA_VISIBLE_DEVICES hides them all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return []
    texts = [path.read_text() for path in sorted(_GPUS.glob("*/information"))]
    return [found[1] for text in texts if (found := re.search(r"^Model:\s*(.*\S)", text, re.MULTILINE))]
