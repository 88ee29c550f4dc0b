"""What a program did on the stand-in for CUDA: counts, names, and a device that breaks. See README.md."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

if "FAKE_CUDA" not in os.environ:
    raise ImportError("there is no stand-in for CUDA in this process: start it with run.sh")
MODE = os.environ["FAKE_CUDA"]
BUILT = Path(os.environ["FAKE_CUDA_BUILT"])
_library = ctypes.CDLL(str(BUILT / "libfakecuda.so"))


@dataclass
class Counts:
    """Since the process started, or within `counted`."""

    launches: int = 0  # kernels, library calls and copies on the device
    syncs: int = 0  # where the host waited for a device, a stream or an event
    to_device: int = 0
    to_host: int = 0
    memsets: int = 0
    mallocs: int = 0
    library: int = 0  # of the launches, those of cuBLAS and cuDNN: each is one or more kernels on a GPU
    recorded: int = 0  # put down for a graph while a stream was captured; launching the graph is one launch

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, f.name)} {f.name}" for f in fields(self))


def counts() -> Counts:
    values = (ctypes.c_long * len(fields(Counts)))()
    _library.fc_counts(values)
    return Counts(*values)


@contextmanager
def counted() -> Iterator[Counts]:
    """The counts of a block, complete at its end."""
    result, before = Counts(), counts()
    yield result
    after = counts()
    for f in fields(Counts):
        setattr(result, f.name, getattr(after, f.name) - getattr(before, f.name))


@contextmanager
def named() -> Iterator[dict[str, int]]:
    """How often each kernel, library call, copy and wait of a block happened, by name; waits name their device."""
    names: dict[str, int] = {}
    _library.fc_detail(1)
    yield names
    _library.fc_detail(0)

    @ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_long)
    def tell(name: bytes, count: int) -> None:
        names[name.decode()] = count

    _library.fc_names(tell)


def break_device() -> None:
    """From here on each launch, copy and wait reports an illegal memory access, as after a kernel's fault."""
    _library.fc_break_device(1)


def mend_device() -> None:
    """Undo `break_device`, as only another process could on a GPU."""
    _library.fc_break_device(0)
