"""Training of a narrow ResNet for some steps, in a separate process, which a damaged heap ends by a signal.

Some releases of torch write beyond the memory of a gradient of such networks, unless models/resnet.py avoids it. The
heap is checked by glibc as its environment variables say.
"""

from __future__ import annotations

import os
import subprocess
import sys
from ctypes.util import find_library

import torch
import torch.nn.functional as F

from lthbench.data.spec import DataSpec
from lthbench.models.spec import ModelSpec
from lthbench.tasks.network import make_network, set_initial_weights

WIDTH, BATCH, STEPS = 4, 64, 3


def train_narrow() -> int:
    """Train in a process of its own; returns its exit code, below 0 a signal's."""
    checks = {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165", "OMP_NUM_THREADS": "1"}
    if library := find_library("c_malloc_debug"):  # without it glibc checks less
        checks["LD_PRELOAD"] = library
    command = [sys.executable, "-m", __name__]
    return subprocess.run(command, env=os.environ | checks, capture_output=True, check=False).returncode


def main() -> None:
    """Train on images of noise, 64 pixels a side, where the fault shows most."""
    data, spec = DataSpec(name="tinyimagenet"), ModelSpec(name="resnet8", width=WIDTH)
    network = make_network(spec, data, torch.device("cpu"))
    set_initial_weights(network, spec, seed=0)
    for _ in range(STEPS):
        images = torch.randn(BATCH, *data.info.image_shape).contiguous(memory_format=torch.channels_last)
        F.cross_entropy(network(images), torch.zeros(BATCH, dtype=torch.int64)).backward()
        # Memory beside the gradients is handed out and given back, when glibc looks at it.
        neighbours = [torch.randn(7 * n + 1) for n in range(60)]
        del neighbours


if __name__ == "__main__":
    main()
