"""What `lthbench doctor` says of the three families is so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from devices import DEVICES, needs_kernels, reference

from lthbench.bench import doctor, selfcheck
from lthbench.bench.doctor import examine
from lthbench.bench.selfcheck import run_families

FAMILIES = {"masked update", "threshold and masks", "interpolation"}


@needs_kernels
@pytest.mark.parametrize("device", DEVICES)
def test_the_kernels_of_all_families_run_and_are_right(device):
    assert run_families(device) == dict.fromkeys(FAMILIES, (True, "kernel"))


@pytest.mark.parametrize("device", DEVICES)
def test_the_reference_of_all_families_is_right(device):
    with reference():
        assert run_families(device) == dict.fromkeys(FAMILIES, (True, "reference"))


def test_a_wrong_result_is_a_problem_that_doctor_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    right = selfcheck.prune_lowest
    monkeypatch.setattr(selfcheck, "prune_lowest", lambda scores, masks, k: right(scores, masks, k + 1))
    monkeypatch.setattr(selfcheck, "count_errors", lambda logits, labels: torch.mm(logits, labels))  # raises
    monkeypatch.setattr(doctor, "train_narrow", lambda: -11)
    problems = {f.what: f.text for f in examine(tmp_path, None) if f.level == "problem"}
    assert problems.keys() >= {"threshold and masks, cpu", "interpolation, cpu"}
    assert "masked update, cpu" not in problems and "signal 11" in problems["narrow networks"]
