"""A user's own network, criterion, experiment, images, tickets and claim, in jobs: the results of a local run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_slurm import lthbench, results

PLUGIN = Path(__file__).parents[1] / "example" / "my_models.py"
SUITE = """\
title: own things
replicates: 2
claims: [own-claims.yaml]
pairs:
  pets:
    model: {name: tiny-cnn, width: 2}
    data: {name: pets, validation: 40}
    recipe: {steps: 1ep, batch_size: 50, optimizer: {name: sgd, lr: 0.05, momentum: 0.9}}
    arms: {mine: {}}
    claim_levels: {range: [1]}
    experiments:
      imp: {levels: 1, criterion: taylor}
      untrained: {levels: [1]}
      imported: {tickets: [first, second], level: 1, weights: own, kinds: [reinit, random]}
"""
CLAIM = """\
own:
  sentence: The masks that were brought are better than random ones.
  origin: a pilot
  experiments: [imported]
  tests:
    - what: a network on an imported mask is more accurate than one on a random mask
      test: contrast
      plus: {mine: reinit}
      minus: {mine: random}
      margin: 5
"""
COMMON = ("suite.yaml", "--plugin", "my_models.py", "--data", "data")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with all of it, and a store, `here`, in which the suite has run in one process."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(PLUGIN, tmp_path)
    (tmp_path / "suite.yaml").write_text(SUITE)
    (tmp_path / "own-claims.yaml").write_text(CLAIM)
    rng = np.random.default_rng(0)
    np.save("images.npy", rng.integers(0, 256, (240, 8, 8), dtype=np.uint8))
    np.save("labels.npy", np.arange(240) % 4)
    lthbench("data", "add", "pets", "--arrays", "images.npy", "labels.npy", "--data", "data")
    for seed, name in enumerate(("first", "second")):
        mask = torch.rand(4, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) < 0.5
        save_file({"conv2.weight": mask}, f"{name}.safetensors")
        words = ("ticket", "import", f"{name}.safetensors", *COMMON, "--name", name, "--store", "here")
        lthbench(*words)
    shutil.copytree("here", "jobs")
    lthbench("run", *COMMON, "--store", "here", "--executor", "debug", "--device", "cpu", "--no-report")
    return tmp_path


def test_jobs_of_the_local_stand_in_know_a_users_own_things(folder: Path) -> None:
    lthbench("submit", *COMMON, "--store", "jobs", "--cluster", "local", "--device", "cpu")
    assert results(folder / "jobs") == results(folder / "here")
    found = json.loads(lthbench("verdicts", *COMMON, "--store", "jobs", "--json"))
    (own,) = [one for one in found if one["claim"] == "own"]
    assert own["n"] == 2, "both imported tickets, one per replicate"
