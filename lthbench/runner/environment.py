"""What results depend on besides their specification: versions, device, instruction set, threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import torch

import lthbench
from lthbench.ops._library import kernels_available


def environment(device: torch.device) -> dict[str, str | int | bool]:
    """The environment of this process; equal environments give equal bits."""
    return {
        "lthbench": lthbench.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "kernels": kernels_available(device),
    }


def device_name(device: torch.device) -> str:
    """A device as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()} ({torch.backends.cpu.get_cpu_capability()})"


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
