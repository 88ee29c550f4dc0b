"""Submitting a suite's lanes as job arrays, and waiting for them."""

from __future__ import annotations

import functools
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lthbench.lease import Lease, LeaseLostError
from lthbench.runner.queue import Outcome
from lthbench.runner.settings import RunOptions
from lthbench.runner.slurm.lanes import Lane, make_lanes, waves
from lthbench.runner.slurm.records import (
    RECORD,
    Cluster,
    LaneRecord,
    Record,
    jobs_folder,
    queued_jobs,
    read_records,
)
from lthbench.runner.slurm.scheduler import QueuedJob, SchedulerError, largest_array, queued
from lthbench.runner.watcher import Watcher
from lthbench.suite.plan import Plan
from lthbench.suite.slurm_options import SlurmOptions
from lthbench.suite.subset import WHOLE, Subset
from lthbench.tasks.atomic import write_json
from lthbench.tasks.store import Store, unusable
from lthbench.training.recipe import Engine

if TYPE_CHECKING:
    from submitit import Job

Queue = Mapping[tuple[str, int], QueuedJob]
_LONGEST_PAUSE = 60.0  # seconds between two polls of a slow queue


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is sent to a cluster, and how.

    Attributes:
        suite: its file.
        engine: what trains in place of what its recipes name.
        part: of the suite that is planned.
        run: how the jobs run tasks.
        slurm: what they ask of Slurm.
        cluster: `local` and `debug` are submitit's ways to run the same jobs on this machine; they are waited for.
        retry_failed: whether tasks that failed before are tried again.
    """

    suite: Path
    store: Store
    engine: Engine | None = None
    part: Subset = WHOLE
    run: RunOptions = RunOptions()  # noqa: RUF009 (immutable)
    slurm: SlurmOptions = SlurmOptions()  # noqa: RUF009 (immutable)
    cluster: Cluster = "slurm"
    retry_failed: bool = False


@dataclass
class Submitted:
    """The outcome of a submission: lanes and tasks submitted, tasks that were in jobs already, and tasks given up."""

    lanes: int = 0
    tasks: int = 0
    arrays: int = 0
    queued: int = 0
    failed: int = 0
    waiting: int = 0


def submit(plan: Plan, submission: Submission, queue: Callable[[], Queue]) -> Submitted:
    """Submit the missing tasks of a plan that are in no job yet and do not wait for a failed task.

    Args:
        queue: returns the jobs that are queued or running.

    Raises:
        SchedulerError: Slurm is not there, or does not take the jobs; or this process was suspended meanwhile.
    """
    folder = jobs_folder(submission.store)
    try:
        folder.mkdir(exist_ok=True)
        # Of two simultaneous submissions, the second sees the first's jobs.
        with Lease(folder / "lease") as lease:
            return _submit(plan, submission, queue(), lease)
    except LeaseLostError as error:
        raise SchedulerError(
            "another submission went on while this one was suspended: what was sent stays; submit again"
        ) from error
    except OSError as error:
        raise unusable(folder, error) from error


def _submit(plan: Plan, submission: Submission, queue: Queue, lease: Lease) -> Submitted:
    store, on_slurm = submission.store, submission.cluster == "slurm"
    missing = store.missing({key: plan.kept(key) for key in plan.tasks})
    failed: Collection[str] = store.failures(missing)
    if submission.retry_failed:
        for key in failed:
            store.forget_failure(key)
        failed = ()
    job_of = {
        key: job.job
        for record in read_records(store)
        for index, lane in enumerate(record.lanes)
        if (job := queue.get((record.name, index))) is not None
        for key in lane.keys
    }
    hopeless = _with_users(plan, missing, failed)
    wanted = [key for key in missing if key not in job_of and key not in hopeless]
    done = Submitted(
        queued=sum(key in job_of for key in missing), failed=len(failed), waiting=len(hopeless) - len(failed)
    )
    lanes = make_lanes(plan, wanted)
    largest = 1 if not lanes else largest_array() if on_slurm else len(os.sched_getaffinity(0))
    local: dict[int, Job[Any]] = {}
    for after, positions in waves(lanes):
        inputs = {t.key for p in positions for key in lanes[p].keys for t in plan.tasks[key].inputs}
        jobs = {job_of[key] for key in inputs if key in job_of}
        for first in range(0, len(positions), largest):
            chosen = positions[first : first + largest]
            _wait([local[p] for p in after if p in local])
            lease.check()
            sent = _send(plan, submission, [lanes[p] for p in chosen], jobs)
            if not on_slurm:
                local |= dict(zip(chosen, sent, strict=True))
                _wait(sent)
            for p, new in zip(chosen, sent, strict=True):
                job_of |= dict.fromkeys(lanes[p].keys, str(new.job_id))
            done.arrays += 1
            done.lanes += len(chosen)
    done.tasks = len(wanted)
    return done


def _send(plan: Plan, submission: Submission, lanes: list[Lane], after: Collection[str]) -> list[Job[Any]]:
    """Submit one array, which starts when the jobs `after` have ended, however they did."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from lthbench.runner.slurm.executors import make_executor
    from lthbench.runner.slurm.lane_job import JobSpec, LaneJob

    suite, store, options = submission.suite.resolve(), submission.store, submission.slurm
    stem = re.sub(r"[^A-Za-z0-9]+", "-", suite.stem)[:20]
    name = f"lthbench-{stem}-{uuid.uuid4().hex[:10]}"
    folder = jobs_folder(store) / name
    folder.mkdir()
    now = datetime.now(timezone.utc).isoformat()
    keys = [{key: sorted(plan.kept(key)) for key in lane.keys} for lane in lanes]
    places = [LaneRecord(lane=str(lane), keys=its) for lane, its in zip(lanes, keys, strict=True)]
    record = Record(name=name, suite=str(suite), cluster=submission.cluster, submitted=now, lanes=places)
    write_json(folder / RECORD, record.model_dump())
    executor = make_executor(submission.cluster, folder, name, options, after)
    num_processes = options.nodes * options.tasks_per_node
    orders = [
        JobSpec(
            suite,
            submission.part,
            lane.home,
            its,
            store.root.absolute(),
            submission.run.absolute(),
            options.signal_before / 2,
            num_processes,
            submission.engine,
        )
        for lane, its in zip(lanes, keys, strict=True)
    ]
    try:
        jobs = executor.submit_array([LaneJob(order.text()) for order in orders])
    except (FailedJobError, FailedSubmissionError) as error:
        raise SchedulerError(
            f"{str(error).strip()}; change the option that it names, or wait where a limit is reached, and submit "
            "again: what was sent before stays"
        ) from error
    number = str(jobs[0].job_id).partition("_")[0]
    write_json(folder / RECORD, record.model_dump() | {"job": number})
    return jobs


def run_on_slurm(
    plan: Plan, submission: Submission, watcher: Watcher, *, missing: Collection[str], poll: float = 5.0
) -> Outcome:
    """Submit the missing tasks of a plan and wait until none of the suite's jobs is left.

    Args:
        poll: seconds between two polls of the queue and the store, or ten times the time of a poll, if less than a
            minute.

    A controller that does not answer is waited for.

    Jobs that end before they are done (they met too many time limits, or their node died) leave tasks that have
    neither run nor failed: they are blocked.
    """
    told: set[str] = set()

    def tell(text: str) -> None:
        if text not in told:
            told.add(text)
            watcher.told(text)

    look = functools.partial(queued, tell=tell)
    submit(plan, submission, look)
    store = submission.store
    outcome = Outcome()
    left = {key: plan.kept(key) for key in missing}
    busy = True
    while busy:
        begun = time.monotonic()
        busy = bool(queued_jobs(store, submission.suite, look(math.inf)))
        still = set(store.missing(left))
        for key in [key for key in left if key not in still]:
            del left[key]
            result = store.result(key)
            outcome.ran.append(key)
            watcher.finished(key, 0, result["status"] if result else "ok")
        for key, error in store.failures(left).items():
            if key not in outcome.failed:
                outcome.failed[key] = error
                watcher.failed(key, 0, error)
        if busy:
            time.sleep(max(poll, min(10 * (time.monotonic() - begun), _LONGEST_PAUSE)))
    outcome.blocked = [key for key in left if key not in outcome.failed]
    return outcome


def _wait(jobs: Collection[Job[Any]]) -> None:
    for job in jobs:
        job.exception()


def _with_users(plan: Plan, missing: Collection[str], failed: Collection[str]) -> set[str]:
    """Failed tasks and those that need them."""
    found = set(failed)
    for key in missing:  # inputs come before those that need them
        if any(task.key in found for task in plan.tasks[key].inputs):
            found.add(key)
    return found
