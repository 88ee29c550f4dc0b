"""What Slurm says of its queue, without accounting: squeue and scancel."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass


class SchedulerError(Exception):
    """Slurm is not there or does not answer; the message says what to do."""


@dataclass(frozen=True)
class QueuedJob:
    """A job that is queued or runs: its id, Slurm's state, the time left of its limit, and why it waits."""

    job: str
    state: str
    left: str
    reason: str


def queued() -> dict[tuple[str, int], QueuedJob]:
    """The user's jobs by name and index within their array.

    Raises:
        SchedulerError: there is no Slurm, or it does not answer.
    """
    lines = _call("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%L|%r|%j").splitlines()
    jobs = {}
    for line in lines:
        job, state, left, reason, name = line.split("|", 4)
        index = job.partition("_")[2]
        jobs[name, int(index or 0)] = QueuedJob(job, state, left, reason)
    return jobs


def cancel(jobs: Iterable[str]) -> None:
    """Cancel jobs by their ids."""
    jobs = list(jobs)
    for first in range(0, len(jobs), 500):
        _call("scancel", *jobs[first : first + 500])


def _call(program: str, *arguments: str) -> str:
    if shutil.which(program) is None:
        raise SchedulerError(
            f"{program} is not on the PATH: is this a login node of the cluster? "
            "`lthbench run` runs a suite on this machine"
        )
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = said[-1] if said else f"{program}: ended with code {done.returncode}"
        raise SchedulerError(f"{reason}; does Slurm run here? `lthbench run` runs a suite on this machine")
    return done.stdout
