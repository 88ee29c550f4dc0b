"""Devices: which one is meant, which of its GPUs a worker and a rank compute on, and what can go wrong with one."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NewType

if TYPE_CHECKING:
    import torch

Device = NewType("Device", str)
"""A device that this machine has: `cpu`, `cuda` (its GPUs) or `cuda:N`. What users ask for, `auto` too, is text until
`resolve_device` has looked, once: where a command begins, or a job."""

CPU = Device("cpu")
_GIVEN = "SLURM_JOB_GPUS", "SLURM_STEP_GPUS"
# NVIDIA's on servers, on Windows' Linux, and on its boards; AMD's.
_DRIVERS = "nvidia*", "dxg", "nvhost*", "nvmap", "kfd"


class DeviceError(Exception):
    """The requested device is missing; the message says what to do."""


class DeviceLostError(Exception):
    """This process can compute nothing more on its device; another process may.

    Its GPU gives only errors, as after an illegal memory access, or the processes started with it are gone.

    Attributes:
        try_again: whether the task in which it was lost is to be tried again, once.
    """

    def __init__(self, reason: str, try_again: bool) -> None:
        super().__init__(reason)
        self.try_again = try_again


class DeviceMemoryError(Exception):
    """A task needs more memory than the GPU has for it; the message says what to do."""


def resolve_device(asked: str, processes: int = 1) -> Device:
    """Resolve `--device`; `auto` is a GPU if there is one.

    Args:
        processes: how many take a GPU each, starting from this one.

    Raises:
        DeviceError: this machine does not have it; or Slurm gave this job GPUs that torch does not see, and the CPU
            would do their work for days.
    """
    if asked == CPU or (asked == "auto" and not may_have_gpu()):
        return CPU
    import torch

    try:
        device = torch.device(_present() if asked == "auto" else asked)
    except RuntimeError:
        raise DeviceError(f"--device {asked}: is not a device; give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"--device {asked}: only cpu and cuda are supported")
    if device.type == "cuda":
        count, first = torch.cuda.device_count(), device.index or 0
        if not torch.cuda.is_available() or first >= count:
            raise DeviceError(f"--device {asked}: this machine has {count} CUDA devices; give --device cpu")
        if first + processes > count:
            raise DeviceError(
                f"--processes-per-task {processes}: each takes a GPU, from {device} on, and this machine has {count}; "
                "give a smaller number"
            )
    return Device(str(device))


def may_have_gpu() -> bool:
    """Whether torch has to be asked for GPUs: it is here anyway, a driver is, or Slurm gave some to this job."""
    drivers = (file for pattern in _DRIVERS for file in Path("/dev").glob(pattern))
    return "torch" in sys.modules or any(map(os.environ.get, _GIVEN)) or any(drivers)


def _present() -> Device:
    """A GPU where there is one, else the processor."""
    import torch

    if torch.cuda.is_available():
        return Device("cuda")
    for variable in _GIVEN:
        if given := os.environ.get(variable):
            raise DeviceError(
                f"this job was given GPUs ({variable}={given}), and torch {torch.__version__} sees none: is it built "
                "for their driver? --device cpu works without"
            )
    return CPU


def num_groups(device: Device, processes: int) -> int:
    """How many trainings have GPUs of their own at a time, `processes` each: all GPUs for `cuda`, else the named one's
    only."""
    if device != "cuda":
        return 1
    import torch

    return torch.cuda.device_count() // processes


def device_of_worker(device: Device, index: int, processes: int) -> Device:
    """The device of a worker: workers take the GPUs that `cuda` stands for in turn, `processes` each; this is their
    first."""
    if device != "cuda":
        return device
    return Device(f"cuda:{index % num_groups(device, processes) * processes}")


def device_of_rank(device: Device) -> torch.device:
    """The device of this process: the CPU, or the GPU LOCAL_RANK places after that of its worker."""
    import torch

    first = torch.device(device)
    if first.type != "cuda":
        return first
    return torch.device("cuda", (first.index or 0) + int(os.environ.get("LOCAL_RANK", "0")))


def is_lost(device: torch.device) -> bool:
    """Whether a device has failed for this process: errors of a GPU persist until the process ends."""
    import torch

    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def within_memory(
    compute: Callable[[], dict[str, Any]], frugally: Callable[[], dict[str, Any]], tell: Callable[[str], None]
) -> dict[str, Any]:
    """Do a computation; if the GPU's memory does not suffice, free unused memory and try once more.

    Args:
        frugally: computes the same in as little memory as possible.

    Raises:
        DeviceMemoryError: it does not suffice then either.
    """
    import torch

    try:
        return compute()
    except torch.OutOfMemoryError as error:
        tell(f"{_first_line(error)} Unused memory is freed and the task restarted")
    gc.collect()
    torch.cuda.empty_cache()
    try:
        return frugally()
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"{_first_line(error)} It needs a GPU with more memory, a recipe with a micro_batch, or fewer processes "
            "on the GPU (--per-device)"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
