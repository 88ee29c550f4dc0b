"""The environment that results depend on besides their specification: versions, device, instruction set, threads."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch

import lthbench
from lthbench.engine.policy import policy_digest
from lthbench.machine import cpuinfo, processor_name
from lthbench.ops._library import kernels_available

# Variables that limit the instruction sets of oneDNN, MKL and our kernels, and so determine the order of their sums.
DISPATCH = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "LTHBENCH_CPU_ISA")

# Those that choose among the kernels of cuBLAS and cuDNN.
CUDA_DISPATCH = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "TORCH_BLAS_PREFER_CUBLASLT",
    "TORCH_CUDNN_V8_API_DISABLED",
)


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
        "dispatch": _set(DISPATCH),
        "threads": torch.get_num_threads(),
        "kernels": kernels_available(device),
        "policy": policy_digest(),
        **(_of_cuda(device) if device.type == "cuda" else {}),
    }


def _of_cuda(device: torch.device) -> dict[str, str | int | bool]:
    """What determines the kernels of a GPU beside torch's version: the driver, cuDNN, and the settings of cuBLAS."""
    matmul = torch.backends.cuda.matmul
    try:
        module = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        module = ""
    number = re.search(r"\b\d+\.\d+(\.\d+)?\b", module)
    return {
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)),
        "cuda": torch.version.cuda or "",
        "driver": number[0] if number else "",
        "cudnn": torch.backends.cudnn.version() or 0,
        "tf32": matmul.allow_tf32 or torch.backends.cudnn.allow_tf32,
        "reduced_precision_sums": bool(
            matmul.allow_fp16_reduced_precision_reduction or matmul.allow_bf16_reduced_precision_reduction
        ),
        "cuda_dispatch": _set(CUDA_DISPATCH),
    }


def _set(variables: Sequence[str]) -> str:
    """Those of some environment variables that are set, with their values."""
    return " ".join(f"{name}={os.environ[name]}" for name in variables if os.environ.get(name))


def device_name(device: torch.device) -> str:
    """The name of a device as its vendor gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()} ({torch.backends.cpu.get_cpu_capability()})"


def processor() -> str:
    """The processor's model, by which MKL chooses its kernels, and its caches, by which oneDNN sizes its blocks."""
    words, caches = cpuinfo(), Path("/sys/devices/system/cpu/cpu0/cache")
    model = words.get("model name") or platform.processor() or platform.machine()
    numbers = "/".join(words[name] for name in ("cpu family", "model") if name in words)
    sizes = "/".join(path.read_text().strip() for path in sorted(caches.glob("index[023]/size")))
    return " ".join(part for part in (model, numbers, sizes) if part)


def make_deterministic(num_threads: int) -> None:
    """Make this process deterministic: the same work gives the same bits."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    # `torch.use_deterministic_algorithms` also imports all of torch.compile, two seconds, to tell it of the mode.
    torch._C._set_deterministic_algorithms(True, warn_only=False)
    os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"  # which it reads when it is imported
    if compiler := sys.modules.get("torch._inductor.config"):
        compiler.deterministic = True  # type: ignore[attr-defined]
    # It would fill every new tensor with NaN, a sixth of a training step, to show up reads of undefined memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
