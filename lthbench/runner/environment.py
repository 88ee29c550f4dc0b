"""What results depend on besides their specification: versions, device, instruction set, threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import numpy
import torch

import lthbench
from lthbench.ops._library import kernels_available
from lthbench.ops.processor import cpuinfo

# Variables by which a user bounds the instructions that oneDNN and MKL use, and with them the order of their sums.
DISPATCH = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")


def environment(device: torch.device) -> dict[str, str | int | bool]:
    """The environment of this process; equal environments give equal bits."""
    return {
        "lthbench": lthbench.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "numpy": numpy.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "processor": processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "dispatch": " ".join(f"{name}={os.environ[name]}" for name in DISPATCH if os.environ.get(name)),
        "threads": torch.get_num_threads(),
        "kernels": kernels_available(device),
    }


def device_name(device: torch.device) -> str:
    """A device as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpuinfo().get('model name', platform.machine())} ({torch.backends.cpu.get_cpu_capability()})"


def processor() -> str:
    """The processor's model, by which MKL chooses its kernels, and its caches, by which oneDNN sizes its blocks."""
    words, caches = cpuinfo(), Path("/sys/devices/system/cpu/cpu0/cache")
    model = words.get("model name") or platform.processor() or platform.machine()
    numbers = "/".join(words[name] for name in ("cpu family", "model") if name in words)
    sizes = "/".join(path.read_text().strip() for path in sorted(caches.glob("index[023]/size")))
    return " ".join(part for part in (model, numbers, sizes) if part)


def make_deterministic(num_threads: int) -> None:
    """Set this process up so that the same work gives the same bits."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    # It would fill every new tensor with NaN, a sixth of a training step, to show up reads of undefined memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
