"""Slurm's queue and limits, without accounting: squeue, scontrol and scancel."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# One more than the largest index of an array, where a cluster's configuration does not say (slurm.conf(5)).
MAX_ARRAY_SIZE = 1001
_PATIENCE = 60.0  # seconds for which a controller that does not answer is retried
_PAUSES = 1.0, 120.0  # seconds between two attempts: first, and at most
_TIMEOUT = 120.0  # seconds after which a silent command is ended
_JOB = re.compile(r"([0-9]+)(?:_([0-9]+))?")


class SchedulerError(Exception):
    """Slurm is not there or does not answer; the message says what to do."""


class _NoAnswer(Exception):
    """A command of Slurm failed, or said nothing in time; the message is what it said."""


@dataclass(frozen=True)
class QueuedJob:
    """A job that is queued or runs: its id, Slurm's state, the time left of its limit, and why it waits."""

    job: str
    state: str
    left: str
    reason: str


def _say_nothing(text: str) -> None: ...


def queued(patience: float = _PATIENCE, tell: Callable[[str], None] = _say_nothing) -> dict[tuple[str, int], QueuedJob]:
    """The user's jobs by name and index within their array.

    Args:
        patience: seconds for which a controller that does not answer is queried again; inf: forever.
        tell: called with notes for the user: that Slurm does not answer, or gave unexpected output.

    Raises:
        SchedulerError: there is no Slurm, or it does not answer.
    """
    said = _ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%L|%r|%j", patience=patience, tell=tell)
    jobs = {}
    for line in said.splitlines():
        # A heading of the cluster, a warning, or a job of another kind.
        fields = line.split("|", 4)
        if len(fields) < 5 or (match := _JOB.fullmatch(fields[0])) is None:
            tell(f"squeue said {line!r}, which is not one of our jobs; it is ignored")
            continue
        job, state, left, reason, name = fields
        jobs[name, int(match[2] or 0)] = QueuedJob(job, state, left, reason)
    return jobs


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs by their ids.

    Raises:
        SchedulerError: some of them are queued or run all the same.
    """
    jobs = list(jobs)
    for first in range(0, len(jobs), 500):
        some = jobs[first : first + 500]
        try:
            _call("scancel", *some)
        except _NoAnswer:  # it reports jobs that have ended since like those that it could not cancel
            going = {job.job for job in queued().values() if job.state != "COMPLETING"}
            if not going.isdisjoint(some):
                _ask("scancel", *sorted(going.intersection(some)), patience=_PATIENCE)


def largest_array() -> int:
    """How many jobs an array of this cluster may have.

    Raises:
        SchedulerError: as `queued`.
    """
    if shutil.which("scontrol") is None:
        return MAX_ARRAY_SIZE
    config = _ask("scontrol", "show", "config", patience=_PATIENCE)
    limits = re.findall(r"^MaxArraySize\s*=\s*([0-9]+)|\bmax_array_tasks=([0-9]+)", config, re.MULTILINE)
    return max(1, min((int(first or second) for first, second in limits), default=MAX_ARRAY_SIZE))


def _ask(program: str, *arguments: str, patience: float, tell: Callable[[str], None] = _say_nothing) -> str:
    """The output of an idempotent command; one that fails is retried after longer and longer pauses."""
    begun, pause = time.monotonic(), _PAUSES[0]
    while True:
        try:
            said = _call(program, *arguments)
        except _NoAnswer as error:
            if time.monotonic() - begun + pause > patience:
                raise SchedulerError(
                    f"{error}; does Slurm run here? `lthbench run` runs a suite on this machine"
                ) from error
            if pause == _PAUSES[0]:
                until = "until there is an answer" if math.isinf(patience) else f"for {patience:g} s"
                tell(f"{error}; {program} is retried, {until}")
            time.sleep(pause)
            pause = min(2 * pause, _PAUSES[1])
        else:
            if pause > _PAUSES[0]:
                tell(f"{program} answers again, after {time.monotonic() - begun:.0f} s")
            return said


def _call(program: str, *arguments: str) -> str:
    if shutil.which(program) is None:
        raise SchedulerError(
            f"{program} is not on the PATH: is this a login node of the cluster? "
            "`lthbench run` runs a suite on this machine"
        )
    # The user's own SQUEUE_STATES, SQUEUE_PARTITION and the like would hide jobs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, errors="replace", env=environment, timeout=_TIMEOUT
        )
    except subprocess.TimeoutExpired as error:
        raise _NoAnswer(f"{program}: said nothing in {_TIMEOUT:g} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise _NoAnswer(said[-1] if said else f"{program}: ended with code {done.returncode}")
    return done.stdout
