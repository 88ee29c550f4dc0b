"""How an operator is given its shape-only implementation, for torch.compile and meta tensors.

It is defined beside the operator's Python function:

@shape_only("pack_mask")
def _pack_mask_shape(mask: Tensor) -> Tensor: ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, library

from lthbench.ops import _library

Function = TypeVar("Function", bound=Callable[..., Any])


def shape_only(name: str) -> Callable[[Function], Function]:
    """Register a function as the shape-only implementation of the operator `name`, where the kernels are loaded.

    It is called behind a check that all tensors lie on one device. Where the binary is older than the function, and
    has no such operator, the binary is not used.
    """

    def decorate(fake: Function) -> Function:
        signature = inspect.signature(fake)

        @functools.wraps(fake)
        def checked(*arguments: Any) -> Any:
            _check_devices(signature.bind(*arguments).arguments)
            return fake(*arguments)

        if _library.is_loaded():
            try:
                library.register_fake(f"lthbench::{name}")(checked)
            except RuntimeError as error:
                _library.unload(f"built from older sources ({error}); reinstall lthbench to build it again")
        return fake

    return decorate


def _check_devices(arguments: Mapping[str, Any]) -> None:
    """Refuse tensors on several devices: with one meta tensor among real ones the dispatcher comes here too."""
    named: list[tuple[str, Tensor]] = []
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            named.append((name, value))
        elif isinstance(value, list):
            named += [(f"{name}[{i}]", t) for i, t in enumerate(value) if isinstance(t, Tensor)]
    first, like = named[0]
    for name, t in named:
        if t.device != like.device:
            raise RuntimeError(f"{name} lies on {t.device}, {first} on {like.device}; move one to the other")
