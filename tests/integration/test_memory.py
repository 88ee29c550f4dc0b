"""What a training worker needs in memory at the size of CIFAR-10."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lthbench.runner.allocator import kept_memory

# A ResNet-20 worker's life: load, train, evaluate; then its peak. Synthetic pixels where the data set is missing.
WORKER = """
import json, sys
from pathlib import Path
import numpy as np
import torch
from lthbench.data import reading
from lthbench.runner.settings import Settings
from lthbench.runner.worker import Worker
from lthbench.tasks import train
from lthbench.tasks.spec import TrainSpec

store, data = Path(sys.argv[1]), sys.argv[2]
if not data:
    def read_split(name, root, split, class_list=None):
        count = 50_000 if split == "train" else 10_000
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (count, 3, 32, 32), np.uint8), np.arange(count) % 10
    reading.read_split = read_split
evaluate = train.evaluate
train.evaluate = lambda model, images, sign: evaluate(model, images.subset(torch.arange(1000)), sign)  # a minute less
spec = TrainSpec.model_validate({
    "model": {"name": "resnet20"},
    "data": {"name": "cifar10", "validation": 5000},
    "recipe": {
        "steps": "6it", "batch_size": 128, "augment": {"crop": 4, "flip": True},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
    },
    "seed": 0,
})
worker = Worker(Settings(store, data=Path(data) if data else None))
result = worker.run("0" * 32, spec.canonical(), frozenset(), lambda done, total: None)
status = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"status": result["status"], "peak_mib": peak / 1024}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_training_resnet20_at_the_size_of_cifar10_stays_under_one_and_a_half_gib(tmp_path: Path) -> None:
    with kept_memory():
        done = subprocess.run(
            [sys.executable, "-c", WORKER, str(tmp_path), os.environ.get("LTHBENCH_DATA", "")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    print(f"\npeak {report['peak_mib']:.0f} MiB")
    assert report["status"] == "ok"
    assert report["peak_mib"] < 1536
