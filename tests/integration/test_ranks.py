"""Several processes at one training: the results of one, the same bits on each, and resumed to the same bits."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from integration import rank_program
from torch import Tensor

from lthbench.runner.device import DeviceLostError
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.runner.watcher import Watcher
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.tasks.store import Store
from lthbench.tasks.tensor_files import read_tensors
from lthbench.training.distributed import Ranks

SIZE = 2

Outcome = tuple[dict[str, Tensor], dict[str, Any]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Outcome]]:
    """How every training of `rank_program` ended on each of two processes."""
    out = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, rank_program.__file__]
    processes = [subprocess.Popen([*command, str(rank), str(SIZE), str(out)]) for rank in range(SIZE)]
    assert [process.wait(timeout=300) for process in processes] == [0] * SIZE
    names = [*rank_program.CASES, "diverging"]
    return {name: [read_tensors(out / f"{name} {rank}.safetensors") for rank in range(SIZE)] for name in names}


@pytest.mark.parametrize("name", rank_program.CASES)
def test_two_processes_train_as_one_with_the_whole_batch(name: str, outcomes: dict[str, list[Outcome]]) -> None:
    expected, note = rank_program.outcome_of(rank_program.trainer_of(name))
    state, own_note = outcomes[name][0]
    assert set(state) == set(expected)
    for key, tensor in expected.items():
        # In float64: running statistics, momentum and averages too.
        assert torch.allclose(state[key].double(), tensor.double(), rtol=1e-9, atol=1e-12), key
    assert own_note["losses"] == pytest.approx(note["losses"], abs=1e-9)
    assert own_note["epoch_losses"] == pytest.approx(note["epoch_losses"], abs=1e-9)
    assert own_note["epoch_distances"] == pytest.approx(note["epoch_distances"], rel=1e-9)


@pytest.mark.parametrize("name", rank_program.CASES)
def test_both_processes_hold_the_same_bits(name: str, outcomes: dict[str, list[Outcome]]) -> None:
    (first, first_note), (second, second_note) = outcomes[name]
    assert all(torch.equal(first[key], second[key]) for key in first) and first_note == second_note
    mask = rank_program.mask_of(rank_program.trainer_of(name).model)
    assert all(not first[f"model.{key}"][~survivors].any() for key, survivors in mask.items())


def test_both_processes_notice_a_divergence_where_one_would(outcomes: dict[str, list[Outcome]]) -> None:
    alone = rank_program.trainer_of("lenet", optimizer=rank_program.TOO_FAST).run()
    assert alone.diverged_at == 3, "the end of the first epoch"
    assert [note["diverged_at"] for _, note in outcomes["diverging"]] == [3, 3]


def test_ranks_that_differ_are_an_error() -> None:
    class Astray(Ranks):
        def all_gather(self, tensor: Tensor) -> Tensor:
            return torch.stack([tensor, tensor, tensor + 1])

    with pytest.raises(RuntimeError, match=r"the weights differs .* \(of process 2 from process 0\)"):
        Astray(0, 3).assert_identical("the weights", "digest", torch.device("cpu"))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize(("begin", "end"), [(0, 0), (0, 1), (3, 10), (0, 128), (128, 135)])
def test_the_parts_of_ranks_are_the_batch_in_order_and_as_even_as_can_be(size: int, begin: int, end: int) -> None:
    parts = [Ranks(rank, size).shard(begin, end) for rank in range(size)]
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(begin, end))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


SUITE = """\
title: ranks
replicates: 1
pairs:
  pair:
    model: {name: resnet8, width: 2}
    data: {name: fashion-mnist-10k, num_train: 120}
    recipe:
      steps: 3ep
      batch_size: 32
      optimizer: {name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 1.0e-3}
      augment: {crop: 2, flip: true}
      ema: 0.9
    arms: {only: {}}
    experiments: {imp: {levels: 1, rewind: 1ep}}
"""


def followers_of(pid: int) -> list[psutil.Process]:
    """The processes that a leader has started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(pid).children()
        return [child for child in children if "lthbench.runner.process_group" in " ".join(child.cmdline())]
    return []


class KillsAFollower(Watcher):
    """Kills a process of the first training that is heard of."""

    killed = False

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        if not self.killed:
            self.killed = True
            followers_of(os.getpid())[1].kill()


def results(suite: Path, store: Path) -> dict[str, dict[str, Any]]:
    """Everything that a run measured, but for times."""
    found = {key: Store(store).result(key) for key in make_plan(load_suite(suite)).tasks}
    return {
        key: {k: v for k, v in result.items() if k not in ("seconds", "finished", "digest")}
        for key, result in found.items()
        if result is not None
    }  # fmt: skip


@pytest.mark.slow
def test_a_training_over_three_processes_that_lost_one_or_was_killed_resumes_to_the_same_bits(tmp_path: Path) -> None:
    suite, store = tmp_path / "suite.yaml", tmp_path / "killed"
    suite.write_text(SUITE)
    plan = make_plan(load_suite(suite))
    here = Settings(tmp_path / "straight", checkpoint_every=0, processes=3)
    assert not run_plan(plan, here, num_workers=0).failed
    assert not followers_of(os.getpid())

    command = [sys.executable, "-m", "lthbench", "run", str(suite), "--store", str(store), "--device", "cpu"]
    command += ["--workers", "0", "--processes-per-task", "3", "--checkpoint-every", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as leader:
        while not list(store.glob("tasks/*/*/checkpoint.safetensors")):
            assert leader.poll() is None, leader.stderr and leader.stderr.read()
            time.sleep(0.02)
        left = followers_of(leader.pid)
        leader.kill()
    assert len(left) == 2 and not psutil.wait_procs(left, timeout=100)[1]

    failed = run_plan(plan, replace(here, store=store), 0, KillsAFollower()).failed
    (error,) = failed.values()
    assert "of the 3 processes at this training ended: " in error and "2 with code -9" in error
    assert not run_plan(plan, replace(here, store=store), num_workers=0, retry_failed=True).failed
    measured = results(suite, store)
    assert measured == results(suite, tmp_path / "straight") and len(measured) == 3
    assert {result["environment"]["processes"] for result in measured.values()} == {3}


def test_a_process_that_cannot_start_is_told_of_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    failed = run_plan(make_plan(load_suite(suite)), Settings(tmp_path / "store", processes=2), num_workers=0).failed
    (error,) = failed.values()
    assert "of the 2 processes at this training ended: 1 with code 1" in error


@pytest.mark.slow
def test_processes_that_torchrun_starts_make_each_training_with_the_losses_of_one_process(tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "lthbench", "run", str(suite), "--store", str(tmp_path / "store"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    together = results(suite, tmp_path / "store")
    assert {result["environment"]["processes"] for result in together.values()} == {2}
    assert done.stdout.count(" tasks: ") == 1, "rank 0 alone prints"

    assert not run_plan(make_plan(load_suite(suite)), Settings(tmp_path / "alone"), num_workers=0).failed
    trainings = {key: result for key, result in results(suite, tmp_path / "alone").items() if "epoch_losses" in result}
    assert len(trainings) == 2
    for key, alone in trainings.items():
        # In float32, where rounding grows from step to step.
        assert together[key]["epoch_losses"] == pytest.approx(alone["epoch_losses"], rel=0.02)
        assert together[key]["epoch_losses"][0] == pytest.approx(alone["epoch_losses"][0], rel=1e-3)


def test_who_has_lost_the_processes_started_with_it_begins_anew_and_fails_no_task(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun or Slurm set it; their connection is broken up
    plan, store = make_plan(load_suite(tiny_suite)), Store(tmp_path / "store")
    store.check()
    with pytest.raises(DeviceLostError, match="no longer connected: started anew, they go on from here") as lost:
        run_plan(plan, Settings(store.root), num_workers=0)
    assert lost.value.try_again and not store.failures(plan.tasks)
