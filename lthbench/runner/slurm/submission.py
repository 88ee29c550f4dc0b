"""Submitting a suite's lanes as job arrays, and the records by which a suite's jobs are found again.

STORE/jobs/NAME/ has, for the array called NAME, its record (array.json, written before Slurm is asked, so that no
job is ever unknown), submitit's files, and the logs.
"""

from __future__ import annotations

import functools
import math
import os
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from lthbench.documents import DocumentError, read_document
from lthbench.lease import Lease, LeaseLostError
from lthbench.runner.local import Watcher
from lthbench.runner.queue import Outcome
from lthbench.runner.settings import RunOptions
from lthbench.runner.slurm.lanes import Lane, make_lanes, waves
from lthbench.runner.slurm.scheduler import QueuedJob, SchedulerError, largest_array, queued
from lthbench.suite.plan import Plan
from lthbench.suite.slurm_options import SlurmOptions
from lthbench.suite.subset import Subset
from lthbench.tasks.atomic import write_json
from lthbench.tasks.spec import Key
from lthbench.tasks.store import Store, StoreError, unusable

if TYPE_CHECKING:
    from submitit import Executor, Job

Cluster = Literal["slurm", "local", "debug"]
RECORD = "array.json"
_LONGEST_PAUSE = 60.0  # seconds between two looks at a queue that takes long to tell


class LaneRecord(BaseModel):
    """A job of an array: the lane it runs, and that lane's keys, with the steps that trainings must keep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lane: str
    keys: dict[Key, list[int]]


class Record(BaseModel):
    """An array of jobs.

    Attributes:
        name: of the array, for Slurm too, and no other's.
        job: Slurm's number of it; None where submitting it was cut short.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    suite: str
    cluster: Cluster
    submitted: str
    lanes: list[LaneRecord]
    job: str | None = None

    def job_of(self, index: int) -> str:
        """The id of one of its jobs."""
        return f"{self.job}_{index}" if len(self.lanes) > 1 else str(self.job)


@dataclass
class Submitted:
    """What a submission did: lanes and tasks sent out, tasks that were in jobs already, and tasks given up."""

    lanes: int = 0
    tasks: int = 0
    arrays: int = 0
    queued: int = 0
    failed: int = 0
    waiting: int = 0


def jobs_folder(store: Store) -> Path:
    return store.root / "jobs"


def read_records(store: Store) -> Iterator[Record]:
    """All records of a store, oldest first.

    Raises:
        StoreError: one is not what was written, or cannot be read.
    """
    found = []
    for path in sorted(jobs_folder(store).glob(f"*/{RECORD}")):
        try:
            record = read_document(path, Record)
        except DocumentError as error:
            raise StoreError(f"{error}; delete {path.parent}, and its jobs are unknown") from error
        except OSError as error:
            raise unusable(path, error) from error
        if record.name != path.parent.name:
            raise StoreError(f"{path}: is the record of array {record.name}; delete {path.parent}")
        found.append(record)
    yield from sorted(found, key=lambda record: (record.submitted, record.name))


def log_of(store: Store, record: Record, index: int, suffix: str = "err") -> Path:
    """The log of a job of an array."""
    return jobs_folder(store) / record.name / f"{record.job_of(index)}_0_log.{suffix}"


def submit(
    plan: Plan,
    part: Subset,
    suite: Path,
    store: Store,
    run: RunOptions,
    options: SlurmOptions,
    *,
    cluster: Cluster,
    queue: Callable[[], Mapping[tuple[str, int], QueuedJob]],
    retry_failed: bool = False,
) -> Submitted:
    """Send out what is missing of a plan, is in no job yet, and does not wait on a failed task.

    Args:
        run: how the jobs run tasks.
        options: what they ask of Slurm.
        cluster: `local` and `debug` are submitit's ways to run the same jobs on this machine; they are waited for.
        queue: what is queued or runs.

    Raises:
        SchedulerError: Slurm is not there, or does not take the jobs; or this process was suspended meanwhile.
    """
    try:
        jobs_folder(store).mkdir(exist_ok=True)
        # Of two submissions at once, the second sees the first's jobs.
        with Lease(jobs_folder(store) / "lease") as lease:
            return _submit(plan, part, suite, store, run, options, cluster, queue(), retry_failed, lease)
    except LeaseLostError as error:
        raise SchedulerError(
            "another submission went on while this one was suspended: what was sent stays; submit again"
        ) from error
    except OSError as error:
        raise unusable(jobs_folder(store), error) from error


def _submit(
    plan: Plan,
    part: Subset,
    suite: Path,
    store: Store,
    run: RunOptions,
    options: SlurmOptions,
    cluster: Cluster,
    queue: Mapping[tuple[str, int], QueuedJob],
    retry_failed: bool,
    lease: Lease,
) -> Submitted:
    missing = store.missing({key: plan.kept(key) for key in plan.tasks})
    failed: Collection[str] = store.failures(missing)
    if retry_failed:
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
    largest = 1 if not lanes else largest_array() if cluster == "slurm" else len(os.sched_getaffinity(0))
    local: dict[int, Job[Any]] = {}
    for after, positions in waves(lanes):
        inputs = {t.key for p in positions for key in lanes[p].keys for t in plan.tasks[key].inputs}
        jobs = {job_of[key] for key in inputs if key in job_of}
        for first in range(0, len(positions), largest):
            chosen = positions[first : first + largest]
            _wait([local[p] for p in after if p in local])
            lease.check()
            sent = _send(plan, part, suite, store, run, options, cluster, [lanes[p] for p in chosen], jobs)
            if cluster != "slurm":
                local |= dict(zip(chosen, sent, strict=True))
                _wait(sent)
            for p, new in zip(chosen, sent, strict=True):
                job_of |= dict.fromkeys(lanes[p].keys, str(new.job_id))
            done.arrays += 1
            done.lanes += len(chosen)
    done.tasks = len(wanted)
    return done


def _send(
    plan: Plan,
    part: Subset,
    suite: Path,
    store: Store,
    run: RunOptions,
    options: SlurmOptions,
    cluster: Cluster,
    lanes: list[Lane],
    after: Collection[str],
) -> list[Job[Any]]:
    """Submit one array, which starts when the jobs `after` have ended, however they did."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from lthbench.runner.slurm.lane_job import JobSpec, LaneJob

    stem = re.sub(r"[^A-Za-z0-9]+", "-", suite.stem)[:20]
    name = f"lthbench-{stem}-{uuid.uuid4().hex[:10]}"
    folder = jobs_folder(store) / name
    folder.mkdir()
    now = datetime.now(timezone.utc).isoformat()
    keys = [{key: sorted(plan.kept(key)) for key in lane.keys} for lane in lanes]
    places = [LaneRecord(lane=str(lane), keys=its) for lane, its in zip(lanes, keys, strict=True)]
    record = Record(name=name, suite=str(suite.resolve()), cluster=cluster, submitted=now, lanes=places)
    write_json(folder / RECORD, record.model_dump())
    executor = _executor(cluster, folder, name, options, after)
    num_processes = options.nodes * options.tasks_per_node
    orders = [
        JobSpec(
            suite.resolve(),
            part,
            lane.home,
            its,
            store.root.absolute(),
            run.absolute(),
            options.signal_before / 2,
            num_processes,
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


def _executor(cluster: Cluster, folder: Path, name: str, options: SlurmOptions, after: Collection[str]) -> Executor:
    """What of submitit takes an array of jobs.

    Raises:
        SchedulerError: there is no Slurm.
    """
    import submitit

    if cluster != "slurm":
        executor = submitit.AutoExecutor(folder, cluster=cluster, local_max_num_timeout=options.max_requeues)
        executor.update_parameters(timeout_min=options.time, nodes=options.nodes, tasks_per_node=options.tasks_per_node)
        return executor
    from lthbench.runner.slurm.arrays import ArrayExecutor

    try:
        array = ArrayExecutor(folder, options.max_requeues)
    except RuntimeError as error:
        raise SchedulerError(f"{error}; `lthbench run` runs a suite on this machine") from error
    array.update_parameters(**sbatch_parameters(name, options, after))
    return array


def sbatch_parameters(name: str, options: SlurmOptions, after: Collection[str]) -> dict[str, Any]:
    """What submitit is told of an array for Slurm, by sbatch's names."""
    parameters: dict[str, Any] = {
        "job_name": name,
        "ntasks_per_node": options.tasks_per_node,
        "array_parallelism": options.max_running,
        "signal_delay_s": options.signal_before,
        "setup": list(options.setup) or None,
        "additional_parameters": {"requeue": True}
        | {option: value for option, value in options.extra.items() if value is not False},
        "dependency": "afterany:" + ":".join(sorted(after)) if after else None,
        # Since Slurm 22.05 srun does not take this from the job any more.
        "srun_args": [f"--cpus-per-task={options.cpus_per_task}"],
    }
    same = (
        "partition", "time", "nodes", "cpus_per_task", "gpus_per_task", "mem", "account", "qos", "constraint",
        "nodelist", "exclude",
    )  # fmt: skip
    parameters |= {option: getattr(options, option) for option in same}
    return {parameter: value for parameter, value in parameters.items() if value is not None}


def run_on_slurm(
    plan: Plan,
    part: Subset,
    suite: Path,
    store: Store,
    run: RunOptions,
    options: SlurmOptions,
    watcher: Watcher,
    *,
    missing: Collection[str],
    retry_failed: bool = False,
    poll: float = 5.0,
) -> Outcome:
    """Submit what is missing of a plan and wait until none of the suite's jobs is left.

    Args:
        poll: seconds between two looks at the queue and the store, or ten times what a look takes, if less than
            a minute.

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
    submit(plan, part, suite, store, run, options, cluster="slurm", queue=look, retry_failed=retry_failed)
    outcome = Outcome()
    left = {key: plan.kept(key) for key in missing}
    busy = True
    while busy:
        begun = time.monotonic()
        busy = bool(queued_jobs(store, suite, look(math.inf)))
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


def queued_jobs(
    store: Store, suite: Path, queue: Mapping[tuple[str, int], QueuedJob]
) -> list[tuple[Record, int, QueuedJob]]:
    """Those of a suite's jobs that are queued or run: their record, their index in it, and what Slurm says."""
    return [
        (record, index, job)
        for record in read_records(store)
        if record.suite == str(suite.resolve())
        for index in range(len(record.lanes))
        if (job := queue.get((record.name, index))) is not None
    ]


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
