"""The devices that the operator tests run on, and the operators' reference beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

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
