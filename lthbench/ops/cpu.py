"""Facts of the processor on which fast paths, or results, depend."""

from __future__ import annotations

import torch


def has_avx512() -> bool:
    """Whether torch uses AVX-512, which the environment variable ATEN_CPU_CAPABILITY may forbid."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512"
