"""How far a suite is: by pair and arm from the store, by job from the store and Slurm's queue."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lthbench.lease import holder_of
from lthbench.runner.pace import pace_of
from lthbench.runner.slurm.records import Record, log_of, read_records
from lthbench.runner.slurm.scheduler import QueuedJob
from lthbench.runner.stall import Stall, stall_of
from lthbench.suite.plan import Plan
from lthbench.tasks.paths import FAILURE, LEASE, STALLED
from lthbench.tasks.spec import TrainSpec
from lthbench.tasks.store import Store, has_kept

_TAIL_BYTES = 4096


@dataclass
class ArmStatus:
    """The tasks of one pair and arm: how many there are, are done, diverged, were refused, and failed (why).

    Attributes:
        collapsed: done trainings of a network of which some layer has no survivor.
    """

    pair: str
    arm: str
    tasks: int = 0
    done: int = 0
    diverged: int = 0
    refused: int = 0
    collapsed: int = 0
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobStatus:
    """A job that is not done.

    Attributes:
        state: Slurm's, in small letters; `failed` where a task of it failed, `ended` where it ended without having
            done or failed them all (it met too many time limits, it was cancelled, its node died).
        done, tasks: how many of its tasks are done, of how many.
        left: the rest of its time limit, if it runs.
        reason: why it waits, if it does.
        log: its log file; and its last lines if the job is over.
    """

    lane: str
    job: str
    state: str
    done: int
    tasks: int
    left: str = ""
    reason: str = ""
    log: Path | None = None
    last_lines: str = ""


@dataclass
class Status:
    """How far a suite is.

    Attributes:
        jobs: those that are not done.
        stalls: key -> the record of a worker that makes no progress.
        part: the share of the work that is done.
        seconds_left: as `Pace` estimates it, with as many at once as run now; None before a task is done.
    """

    arms: list[ArmStatus]
    jobs: list[JobStatus] = field(default_factory=list)
    stalls: dict[str, Stall] = field(default_factory=dict)
    part: float = 0.0
    seconds_left: float | None = None


def suite_status(
    plan: Plan, store: Store, suite: Path, queue: Mapping[tuple[str, int], QueuedJob] | None = None
) -> Status:
    """The state of every task, counted under the first pair and arm that need it, and of every job.

    Args:
        queue: Slurm's queue; None without Slurm, where nothing is known of jobs that are not over.
    """
    rows: dict[tuple[str, str], ArmStatus] = {}
    files = store.files(plan.tasks)
    done = store.done({key: plan.kept(key) for key in plan.tasks}, files)
    failed: dict[str, str] = {}
    stalls: dict[str, Stall] = {}
    running = 0
    for key in plan.tasks:
        cell = plan.cells[key]
        row = rows.setdefault((cell.pair, cell.arm), ArmStatus(cell.pair, cell.arm))
        row.tasks += 1
        if result := done.get(key):
            row.done += 1
            row.diverged += result["status"] == "diverged"
            row.refused += result["status"] == "refused"
            row.collapsed += isinstance(plan.tasks[key].spec, TrainSpec) and result["empty_layers"] > 0
        elif FAILURE in files.get(key, ()):
            failed[key] = row.failures[key] = store.failure(key) or "for an unknown reason"
        running += key not in done and LEASE in files.get(key, ())
        if key not in done and STALLED in files.get(key, ()):
            with contextlib.suppress(OSError):
                if stall := stall_of(store, key, holder_of(store.folder(key) / LEASE)):
                    stalls[key] = stall
    status = Status(list(rows.values()), stalls=stalls)
    if queue is not None:
        status.jobs = _jobs(store, suite, queue, failed)
    pace = pace_of(plan, done)
    left = [key for key in plan.tasks if key not in done]
    status.part = pace.part(plan, done, left, {})
    status.seconds_left = pace.seconds_left(plan, left, {}, at_once=running)
    return status


def _jobs(
    store: Store,
    suite: Path,
    queue: Mapping[tuple[str, int], QueuedJob],
    failed: Mapping[str, str],
) -> list[JobStatus]:
    jobs: list[JobStatus] = []
    told: set[str] = set()
    records = [record for record in read_records(store) if record.suite == str(suite.resolve())]
    done = store.done({key: () for record in records for lane in record.lanes for key in lane.keys})
    # Newest first: what a job left undone is a later one's, where there is one.
    for record in reversed(records):
        for index, lane in enumerate(record.lanes):
            job = queue.get((record.name, index))
            # By the steps that this job was to keep: the suite may want more of them than the part that was sent.
            undone = [
                key
                for key, steps in lane.keys.items()
                if key not in told and not (key in done and has_kept(done[key], steps))
            ]
            if undone or job is not None:
                jobs.append(_job(store, record, index, job, len(lane.keys) - len(undone), undone, failed))
            told.update(undone)
    return jobs[::-1]


def _job(
    store: Store,
    record: Record,
    index: int,
    job: QueuedJob | None,
    num_done: int,
    undone: list[str],
    failed: Mapping[str, str],
) -> JobStatus:
    lane = record.lanes[index]
    if job is not None:
        state, reason = job.state.lower(), job.reason if job.state == "PENDING" else ""
        left = job.left if job.state == "RUNNING" else ""
        return JobStatus(lane.lane, job.job, state, num_done, len(lane.keys), left, reason)
    state = "failed" if any(key in failed for key in undone) else "ended"
    number = record.job_of(index) if record.job else "never sent"
    logs = [log_of(store, record, index, suffix) for suffix in ("err", "out")]
    log = next((path for path in logs if path.exists() and path.stat().st_size), None)
    tail = _last_lines(log) if log else ""
    return JobStatus(lane.lane, number, state, num_done, len(lane.keys), log=log, last_lines=tail)


def _last_lines(path: Path, count: int = 3) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])
