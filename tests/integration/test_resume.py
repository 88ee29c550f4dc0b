"""Killed at any moment and started again, a run ends in the bits of an uninterrupted one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Call

from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.tasks.store import Store

SUITE = """\
title: resume
replicates: 1
pairs:
  pair:
    model: {name: resnet8, width: 2}
    data: {name: fashion-mnist-10k, num_train: 320}
    recipe:
      steps: 5ep
      batch_size: 32
      optimizer: {name: sgd, lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 1.0e-3}
      augment: {crop: 2, flip: true}
    arms: {sgd: {}, adam: {recipe: {optimizer: {name: adamw, lr: 1.0e-3}}}}
    experiments: {imp: {levels: 2, rewind: 1ep}, stability: {spawns: [2ep3it], points: 3, arms: [sgd]}}
"""


# Densities at which its convolutions are over the kept weights.
BLOCKED = SUITE.replace("steps: 5ep", "steps: 5ep\n      engine: blocked").replace(
    "    recipe:", "    pruning: {rate: 0.8}\n    recipe:"
)


# Stochastic depth, micro batches and the average: state beside weights and momentum, and draws within the network.
SWIN = """\
title: resume
replicates: 1
pairs:
  pair:
    model: {name: swin-small64, width: 12, drop_path: 0.3}
    data: {name: fashion-mnist-10k, num_train: 80}
    recipe:
      steps: 5ep
      batch_size: 16
      micro_batch: 12
      ema: 0.9
      optimizer: {name: adamw, lr: 1.0e-3, weight_decay: 0.05}
      augment: {crop: 2, flip: true, mixup: 0.8, cutmix: 1.0}
      label_smoothing: 0.1
    arms: {only: {}}
    experiments: {imp: {levels: 1}}
"""


def run(suite: Path, store: Path) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own, with a checkpoint after every step."""
    command = [sys.executable, "-m", "lthbench", "run", str(suite), "--store", str(store), "--workers", "2"]
    return subprocess.Popen(
        [*command, "--checkpoint-every", "0", "--device", "cpu"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def checkpoints(store: Path) -> set[tuple[Path, int]]:
    """The checkpoints of trainings under way, each with its inode: a new one has another."""
    found = set()
    for path in store.glob("tasks/*/*/checkpoint.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            found.add((path, path.stat().st_ino))
    return found


def digests(suite: Path, store: Path) -> dict[str, object]:
    """Everything that a run measured, but for times."""
    plan, found = make_plan(load_suite(suite)), {}
    for key in plan.tasks:
        result = Store(store).result(key)
        assert result is not None, f"{key} is not done"
        found[key] = {k: v for k, v in result.items() if k not in ("seconds", "finished", "environment", "digest")}
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "whole_group"),
    [(SUITE, True), (SWIN, False), (BLOCKED, True)],
    ids=["all processes", "the main process alone", "the blocked engine"],
)
def test_a_run_killed_again_and_again_ends_in_the_bits_of_an_uninterrupted_one(
    tmp_path: Path, text: str, whole_group: bool
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(text)
    straight = run(suite, tmp_path / "straight")
    assert straight.wait() == 0, straight.stderr and straight.stderr.read()
    rng = random.Random(0)
    store = tmp_path / "killed"
    kills = interrupted = 0
    while True:
        process = run(suite, store)
        # Killed a moment after a training began; the moment decides whether in a training, a mask or a line.
        deadline = time.monotonic() + 300
        moment, before = rng.uniform(0, 0.7), checkpoints(store)
        while process.poll() is None and time.monotonic() < deadline:
            if (kills < 3 or not interrupted) and checkpoints(store) - before:
                deadline = min(deadline, time.monotonic() + moment)
            time.sleep(0.02)
        if process.poll() is not None:
            assert process.returncode == 0, process.stderr and process.stderr.read()
            break
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        kills += 1
        interrupted += bool(checkpoints(store))
    assert interrupted >= 1, "no training was under way at any kill"
    assert digests(suite, store) == digests(suite, tmp_path / "straight")
    assert not checkpoints(store)


def test_running_a_finished_suite_again_trains_nothing(tmp_path: Path, call: Call) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE.replace("5ep", "4ep").replace("320", "64"))
    store = tmp_path / "store"
    again = ("run", tmp_path / "suite.yaml", "--store", store, "--workers", "0", "--device", "cpu")
    assert call(*again)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    assert call(*again)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
