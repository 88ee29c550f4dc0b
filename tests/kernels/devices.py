"""The devices that the operator tests run on, and the operators' reference beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lthbench.ops._library import kernels_available

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
needs_kernels = pytest.mark.skipif(not kernels_available("cpu"), reason="the kernels are not built")


@contextmanager
def reference() -> Iterator[None]:
    """Run the block on the plain PyTorch reference."""
    before = os.environ.get("LTHBENCH_REFERENCE")
    os.environ["LTHBENCH_REFERENCE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LTHBENCH_REFERENCE"]
        else:
            os.environ["LTHBENCH_REFERENCE"] = before


def run_with_isa(isa: str, file: str, calls: str) -> None:
    """Call tests of a file, `t` in `calls`, in a process whose kernels use an older instruction set: base or v3."""
    body = f"import sys; sys.path.insert(0, {str(Path(file).parent)!r})\nimport {Path(file).stem} as t\n{calls}"
    subprocess.run([sys.executable, "-c", body], check=True, env={**os.environ, "LTHBENCH_CPU_ISA": isa})
