"""The stand-in computes: torch's operators on the CPU over the device's memory, the project's kernels emulated."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

import fake_cuda

_readable = fake_cuda._library.fc_readable  # device address -> where the host may follow it
_readable.restype, _readable.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
_emulator = ctypes.CDLL(str(fake_cuda.BUILT / "libemulator.so"))
# Operators that take tensors of both devices; all others fail, as on a GPU.
MIXED = {f"aten.{n}" for n in ("copy_.default", "_to_copy.default", "index.Tensor", "index_put_.default",
                               "_foreach_copy_.default")}  # fmt: skip
# Operators that make tensors or views and compute nothing: the device's own serve.
AS_THEY_ARE = {f"aten.{n}" for n in (
    "detach.default", "alias.default", "lift_fresh.default", "empty.memory_format", "empty_strided.default",
    "_pin_memory.default", "is_pinned.default", "_unsafe_view.default", "_reshape_alias.default",
)}  # fmt: skip


def num_kernels_run() -> int:
    """How many launches of the project's kernels were computed so far."""
    return int(_emulator.emu_num_run())


def enter() -> None:
    """Compute from here on, in this thread and in the backward passes it starts."""
    fake_cuda._library.fc_set_runner(_emulator.emu_runner)
    torch.backends.cudnn.enabled = False
    for kind in ("flash", "mem_efficient", "cudnn"):  # of attention, only the plain form is there on the CPU too
        getattr(torch.backends.cuda, f"enable_{kind}_sdp")(False)
    shown = Tensor.__repr__  # it turns modes off
    Tensor.__repr__ = lambda t, **how: shown(t.cpu() if t.is_cuda and type(t) is Tensor else t, **how)  # type: ignore
    Sim().__enter__()


class Sim(TorchDispatchMode):
    """Within it, operators on CUDA tensors compute."""

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = str(func)
        tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor)]
        on_device = [t for t in tensors if t.is_cuda]
        wanted = kwargs.get("device")
        to_device = wanted is not None and torch.device(wanted).type == "cuda"
        if not (on_device or to_device) or func.namespace != "aten" or _traced(tensors):
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if func.is_view or torch.Tag.inplace_view in func.tags or name in AS_THEY_ARE:
            return func(*args, **kwargs)
        if on_device and name not in MIXED and any(not t.is_cuda and t.dim() for t in tensors):
            places = [(str(t.device), tuple(t.shape)) for t in tensors]
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {places}")

        hosts: dict[int, Tensor] = {}  # id of a CUDA tensor -> a CPU tensor of the same memory
        devices: dict[int, Tensor] = {}  # and back

        def host(t: Any) -> Any:
            if not (isinstance(t, Tensor) and t.is_cuda):
                return t
            if id(t) not in hosts:
                hosts[id(t)] = _on_host(t)
                devices[id(hosts[id(t)])] = t
            return hosts[id(t)]

        recording = fake_cuda._library.fc_capturing() and (wanted is None or to_device)
        if recording:  # a number travels in a launch as it is now
            args, kwargs = tree_map(
                lambda a: a.clone() if isinstance(a, Tensor) and not a.is_cuda and not a.dim() else a, (args, kwargs)
            )
        args, kwargs = tree_map(host, (args, kwargs))
        kwargs.pop("pin_memory", None)
        if wanted is not None:
            kwargs["device"] = torch.device("cpu")
        result = func(*args, **kwargs)

        def device(t: Any) -> Any:
            if not isinstance(t, Tensor):
                return t
            if id(t) in devices:  # an operator in place gives back what it got
                return devices[id(t)]
            if wanted is not None and not to_device:
                return t if name == "aten._to_copy.default" else t.clone()
            place = wanted if to_device else on_device[0].device
            made = torch.empty_strided(t.size(), t.stride(), dtype=t.dtype, device=place)
            if t.numel():
                there = t.untyped_storage().nbytes() - t.storage_offset() * t.element_size()
                ctypes.memmove(_readable(made.data_ptr()), t.data_ptr(), min(there, made.untyped_storage().nbytes()))
            return made

        given = tree_map(device, result)
        if recording:
            _put_down(lambda: func(*args, **kwargs), result, given)
        return given


_put_down_operators: list[Any] = []  # what graphs call stays here


def _put_down(compute: Callable[[], Any], result: Any, given: Any) -> None:
    """Let the graph that is captured compute an operator anew, and put what is new into what it has given."""
    pairs = zip(tree_flatten(result)[0], tree_flatten(given)[0], strict=True)
    made = [_on_host(t) if isinstance(t, Tensor) and t is not r and t.is_cuda else None for r, t in pairs]

    @ctypes.CFUNCTYPE(None)
    def work() -> None:
        with torch.no_grad():
            for new, place in zip(tree_flatten(compute())[0], made, strict=True):
                if place is not None and new.data_ptr() != place.data_ptr():
                    place.copy_(new)

    _put_down_operators.append(work)
    fake_cuda._library.fc_put_down(work)


def _traced(tensors: list[Tensor]) -> bool:
    """Whether torch only looks at what would be computed, as torch.compile and opcheck do."""
    keys = torch._C._TorchDispatchModeKey
    modes = (torch._C._get_dispatch_mode(k) for k in (keys.FAKE, keys.PROXY, keys.FUNCTIONAL))
    return any(m is not None for m in modes) or any(
        isinstance(t, FakeTensor) or torch._is_functional_tensor(t) for t in tensors
    )


def _on_host(t: Tensor) -> Tensor:
    storage = t.untyped_storage()
    whole = storage.nbytes() // t.element_size() * t.element_size()
    if not whole:
        return torch.empty(t.shape, dtype=t.dtype)
    memory = (ctypes.c_uint8 * whole).from_address(_readable(storage.data_ptr()))
    flat = torch.frombuffer(memory, dtype=torch.uint8).view(t.dtype)
    return flat.as_strided(t.size(), t.stride(), t.storage_offset())
