"""What can go wrong with a GPU: it is missing, it stopped working, or its memory does not suffice."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


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
