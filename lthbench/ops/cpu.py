"""Facts of the processor on which fast paths, or results, depend."""

from __future__ import annotations

from pathlib import Path

import torch


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


def has_avx512() -> bool:
    """Whether torch uses AVX-512, which the environment variable ATEN_CPU_CAPABILITY may forbid."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"
