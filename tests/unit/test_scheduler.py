"""What is made of what Slurm's commands say, or do not say, with programs in their place."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lthbench.runner.slurm import scheduler
from lthbench.runner.slurm.scheduler import MAX_ARRAY_SIZE, QueuedJob, SchedulerError, cancel, largest_array, queued

Program = Callable[..., None]
JOB = "12_3|PENDING|4:00:00|Dependency|lthbench-a"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Put a program in the place of one of Slurm's: each line of shell is for one call, and the last for all later."""
    monkeypatch.setattr(scheduler, "_PAUSES", (0.01, 0.02))

    def put(name: str, *lines: str) -> None:
        path = tmp_path / name
        cases = "\n".join(f"{number}) {line} ;;" for number, line in enumerate(lines[:-1], 1))
        count = f"echo call >>{path}.calls; case $(wc -l <{path}.calls) in\n{cases}\n*) {lines[-1]} ;;\nesac\n"
        path.write_text(f"#!/bin/sh\n{count}")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return put


def test_a_queue_that_does_not_answer_at_once_is_asked_again(program: Program) -> None:
    down = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    program("squeue", down, down, down, f"echo '{JOB}'")
    told: list[str] = []
    assert queued(tell=told.append) == {("lthbench-a", 3): QueuedJob("12_3", "PENDING", "4:00:00", "Dependency")}
    assert len(told) == 2 and "connect failure" in told[0] and "answers again" in told[1], told


def test_a_queue_that_never_answers_is_not_an_empty_queue(program: Program) -> None:
    program("squeue", "exit 1")
    with pytest.raises(SchedulerError, match="squeue: ended with code 1; does Slurm run here"):
        queued(patience=0.1)


def test_a_squeue_that_hangs_is_ended_and_asked_again(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_TIMEOUT", 0.5)
    program("squeue", "exec sleep 60", f"echo '{JOB}'")
    told: list[str] = []
    assert len(queued(math.inf, told.append)) == 1
    assert "squeue: said nothing in 0.5 s" in told[0]


@pytest.mark.parametrize(
    "line",
    [
        "CLUSTER: second",
        "squeue: warning: this cluster goes down at noon",
        "12_[4-9]|PENDING|1:00|Priority|lthbench-b",
        "14+1|RUNNING|1:00|None|a job of two parts",
        "|||",
        "",
    ],
)
def test_a_line_of_another_form_is_skipped_and_reported(line: str, program: Program) -> None:
    program("squeue", f"echo '{line}'; echo '{JOB}'; echo '77|RUNNING|1:00|None|a name with | in it'")
    told: list[str] = []
    assert set(queued(tell=told.append)) == {("lthbench-a", 3), ("a name with | in it", 0)}
    assert len(told) == 1 and repr(line) in told[0]


def test_what_the_user_has_squeue_show_hides_no_job(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    program("squeue", f"test -n \"$SQUEUE_STATES\" || echo '{JOB}'")
    assert len(queued()) == 1


def test_a_missing_slurm_is_reported_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match="squeue is not on the PATH: is this a login node"):
        queued(math.inf)
    assert largest_array() == MAX_ARRAY_SIZE


@pytest.mark.parametrize(
    ("config", "largest"),
    [
        ("MaxArraySize            = 1001\nMaxJobCount = 10000", 1001),
        ("MaxArraySize            = 4000\nSchedulerParameters = bf_interval=2,max_array_tasks=500,x=1", 500),
        ("MaxArraySize            = 0", 1),
        ("SlurmctldPort           = 6817", MAX_ARRAY_SIZE),
    ],
)
def test_how_many_jobs_an_array_may_have_is_read_from_the_cluster(config: str, largest: int, program: Program) -> None:
    program("scontrol", "exit 1", f"echo '{config}'")
    assert largest_array() == largest


def test_jobs_that_ended_before_they_could_be_cancelled_are_no_error(program: Program) -> None:
    program("scancel", "echo 'scancel: error: Kill job error on job id 5: Invalid job id specified' >&2; exit 1")
    program("squeue", "echo '5_0|COMPLETING|0:00|None|lthbench-a'; echo '6|PENDING|0:00|None|another'")
    cancel(["5_0", "5_1"])


def test_jobs_that_cannot_be_cancelled_are_reported(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_PATIENCE", 0.05)
    program("scancel", "echo 'scancel: error: Access denied' >&2; exit 1")
    program("squeue", f"echo '{JOB}'")
    with pytest.raises(SchedulerError, match="Access denied"):
        cancel(["12_3"])


def test_pauses_grow_up_to_a_limit(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_PAUSES", (1.0, 120.0))
    pauses: list[float] = []
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=pauses.append))
    program("squeue", *["exit 1"] * 9, "true")
    queued(math.inf)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 120, 120]
