"""The CUDA kernels as they are built keep everything in registers, and have few instructions per weight."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def figures(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "ci/sass.py", "--arch", "sm_90", *options], capture_output=True, text=True, check=False
    )
    if "is not found; pip install" in done.stderr:
        pytest.skip("no cuobjdump")
    if "holds no kernel" in done.stderr:
        pytest.skip("not built for sm_90")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


built = pytest.mark.skipif(not (ROOT / "lthbench/_C_cuda.abi3.so").exists(), reason="the CUDA part is not built")


@built
def test_no_cuda_kernel_spills_registers():
    assert "update_many_kernel" in figures()


@built
def test_a_threshold_has_few_instructions_a_weight_and_is_estimated_above_60_percent_of_the_copy_bandwidth():
    output = figures("--threshold")
    assert float(re.search(r"collect_kernel\w*: ([\d.]+) instructions", output).group(1)) < 24  # 41 and 34 in two reads
    for network in ("resnet50", "swin_t", "vit_b_16"):
        assert int(re.search(rf"{network} .* (\d+)% +\d+%", output).group(1)) > 60
