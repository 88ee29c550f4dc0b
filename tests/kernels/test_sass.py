"""The CUDA kernels as they are built keep everything in registers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / "lthbench/_C_cuda.abi3.so").exists(), reason="the CUDA part is not built")
def test_no_cuda_kernel_spills_registers():
    done = subprocess.run(
        [sys.executable, ROOT / "ci/sass.py", "--arch", "sm_90"], capture_output=True, text=True, check=False
    )
    if "is not found; pip install" in done.stderr:
        pytest.skip("no cuobjdump")
    if "holds no kernel" in done.stderr:
        pytest.skip("not built for sm_90")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "update_kernel" in done.stdout
