"""The records by which a suite's jobs are found again.

STORE/jobs/NAME/ has, for the array called NAME, its record (array.json, written before Slurm is called, so that every
job is known), submitit's files, and the logs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lthbench.documents import DocumentError, read_document
from lthbench.runner.slurm.scheduler import QueuedJob
from lthbench.tasks.spec import Key
from lthbench.tasks.store import Store, StoreError, unusable

Cluster = Literal["slurm", "local", "debug"]
RECORD = "array.json"


class LaneRecord(BaseModel):
    """A job of an array: the lane it runs, and that lane's keys, with the steps that trainings must keep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lane: str
    keys: dict[Key, list[int]]


class Record(BaseModel):
    """An array of jobs.

    Attributes:
        name: of the array, for Slurm too; unique.
        job: its job number in Slurm; None if its submission was interrupted.
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


def queued_jobs(
    store: Store, suite: Path, queue: Mapping[tuple[str, int], QueuedJob]
) -> list[tuple[Record, int, QueuedJob]]:
    """The queued and running jobs of a suite: their record, their index in it, and what Slurm says."""
    return [
        (record, index, job)
        for record in read_records(store)
        if record.suite == str(suite.resolve())
        for index in range(len(record.lanes))
        if (job := queue.get((record.name, index))) is not None
    ]
