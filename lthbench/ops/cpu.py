"""What the processor is, where a faster way depends on it or results do."""

from __future__ import annotations

from pathlib import Path

import torch


def cpuinfo() -> dict[str, str]:
    """What Linux tells of the first processor, by the names in /proc/cpuinfo; nothing on other systems."""
    words: dict[str, str] = {}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return words
    for line in lines:
        name, _, value = line.partition(":")
        words.setdefault(name.strip(), value.strip())
    return words


def has_avx512() -> bool:
    """Whether torch uses AVX-512, which the user's ATEN_CPU_CAPABILITY may hold it from."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"
