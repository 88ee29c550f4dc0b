"""The benchmark of a GPU measures what tasks run on, and loses nothing where one measurement fails."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FILE = Path(__file__).resolve().parents[2] / "ci/gpu_bench.py"


@pytest.mark.fake_cuda("guard")
def test_a_failing_measurement_costs_no_other_one_and_none_uses_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("gpu_bench", FILE)
    assert spec and spec.loader
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    tf32: list[bool] = []

    def network(name: str) -> dict[str, Any]:
        tf32.append(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)
        if name == "resnet18":
            raise AssertionError("wrong")
        return {"seconds": {"step": 1.0}, "bytes": {"step": 5.0}}

    monkeypatch.setattr(bench, "limits", lambda: {"copy_bytes_per_second": 10.0})
    monkeypatch.setattr(bench, "network", network)
    monkeypatch.setattr(bench, "line", lambda name, num_images: {"work": name})
    monkeypatch.setattr(sys, "argv", ["gpu_bench.py", str(tmp_path / "found.json")])
    assert bench.main() == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["resnet18"] == {"failed": "AssertionError: wrong"}
    assert found["resnet50"]["of_copy_bandwidth"] == {"step": 0.5}
    assert found["lenet-300-100 line"] == {"work": "lenet-300-100"}
    assert tf32 == [False] * 3
