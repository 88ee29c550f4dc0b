"""From the host to the batches' device, without the host waiting for the copy.

Later work on the device runs after the copy, in stream order; and unpinned memory, as here, has been read by the time
the call returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def to_device(values: np.ndarray | Sequence[float], device: torch.device) -> Tensor:
    """An array, or numbers as float32, as a tensor on a device."""
    host = torch.from_numpy(values) if isinstance(values, np.ndarray) else torch.tensor(values)
    return host.to(device, non_blocking=True)


class WithoutWaiting(TorchFunctionMode):
    """Within it, `torch.tensor(numbers, device=...)` does not make the host wait for a GPU, as it otherwise does."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call the function, or make the tensor on the host and send it."""
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") is not None:
            device = kwargs["device"]
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to(device, non_blocking=True)
        return func(*args, **kwargs)
