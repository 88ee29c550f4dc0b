"""Which jobs are sent and what is told of them, with a stand-in for sbatch and a queue that is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_store import put_result

from lthbench.runner.scheduler import QueuedJob, SchedulerError
from lthbench.runner.settings import Settings
from lthbench.runner.status import suite_status
from lthbench.runner.store import Store
from lthbench.runner.submission import Submitted, jobs_folder, log_of, read_records, submit
from lthbench.suite.load import load_suite
from lthbench.suite.part import WHOLE
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.slurm import SlurmOptions

Queue = dict[tuple[str, int], QueuedJob]


class Jobs:
    """A suite, a store, and a cluster that takes jobs and never runs them."""

    def __init__(self, suite: Path, folder: Path) -> None:
        self.suite, self.sbatch = suite, folder / "sbatch"
        self.store = Store(folder / "store")
        self.store.check()
        self.plan: Plan = make_plan(load_suite(suite))
        (folder / "srun").touch(mode=0o755)
        self.answer("echo Submitted batch job $$")

    def answer(self, line: str) -> None:
        self.sbatch.write_text(f"#!/bin/sh\n{line}\n")
        self.sbatch.chmod(0o755)

    def submit(self, queue: Queue | None = None, retry_failed: bool = False) -> Submitted:
        return submit(
            self.plan, WHOLE, self.suite, Settings(self.store.root), SlurmOptions(),
            cluster="slurm", queue=lambda: queue or {}, retry_failed=retry_failed,
        )  # fmt: skip

    def queue(self, state: str = "PENDING") -> Queue:
        """The queue with every job that a record knows of."""
        return {
            (record.name, index): QueuedJob(f"7_{index}", state, "1:00", "Priority")
            for record in read_records(self.store)
            for index in range(len(record.lanes))
        }

    def finish(self, key: str) -> None:
        put_result(self.store, self.plan.tasks[key], self.plan.kept(key))


@pytest.fixture
def jobs(tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return Jobs(tiny_suite, tmp_path)


def test_what_is_queued_or_done_is_not_sent_again(jobs: Jobs) -> None:
    first = jobs.submit()
    assert first.tasks == len(jobs.plan.tasks) and first.queued == 0
    again = jobs.submit(jobs.queue())
    assert (again.lanes, again.queued) == (0, len(jobs.plan.tasks))
    assert jobs.submit().tasks == len(jobs.plan.tasks), "jobs that have left the queue did not do it"
    for key in jobs.plan.tasks:
        jobs.finish(key)
    assert jobs.submit().lanes == 0


def test_jobs_of_a_submission_that_was_killed_before_it_knew_their_number_are_known(jobs: Jobs) -> None:
    jobs.answer("exit 1")
    with pytest.raises(SchedulerError, match="submit again: what was sent before stays"):
        jobs.submit()
    (record,) = read_records(jobs.store)
    assert record.job is None
    jobs.answer("echo Submitted batch job $$")
    queue = jobs.queue()  # for Slurm had taken them
    sent = jobs.submit(queue)
    assert sent.queued == sum(len(lane.keys) for lane in record.lanes) > 0
    assert sent.tasks == len(jobs.plan.tasks) - sent.queued
    dependent = [path.read_text() for path in jobs_folder(jobs.store).glob("*/*_submission.sh")]
    assert dependent and all("--dependency=afterany:7_" in text for text in dependent), "they wait for those"


def test_jobs_wait_for_the_jobs_whose_results_they_need_and_for_no_others(jobs: Jobs) -> None:
    jobs.submit()
    texts = [path.read_text() for path in jobs_folder(jobs.store).glob("*/*_submission.sh")]
    waiting = [text for text in texts if "--dependency=" in text]
    assert 0 < len(waiting) < len(texts)
    numbers = {record.job for record in read_records(jobs.store)}
    for text in waiting:
        named = text.partition("--dependency=afterany:")[2].split()[0].split(":")
        assert {job.partition("_")[0] for job in named} <= numbers


def test_status_tells_jobs_by_state(jobs: Jobs) -> None:
    jobs.submit()
    records = list(read_records(jobs.store))
    queue = jobs.queue()
    first = records[0]
    queue[first.name, 0] = QueuedJob("7_0", "RUNNING", "0:42", "None")
    gone = (records[-1].name, 0)
    del queue[gone]
    log = log_of(jobs.store, records[-1], 0)
    log.write_text("".join(f"line {number}\n\n" for number in range(5000)))
    jobs.finish(next(iter(first.lanes[0].keys)))
    status = suite_status(jobs.plan, jobs.store, jobs.suite, queue)
    by_job = {job.lane: job for job in status.jobs}
    assert len(by_job) == sum(len(record.lanes) for record in records)
    running = by_job[first.lanes[0].lane]
    assert (running.state, running.left, running.done) == ("running", "0:42", 1)
    ended = by_job[records[-1].lanes[0].lane]
    assert (ended.state, ended.log, ended.last_lines) == ("ended", log, "line 4997\nline 4998\nline 4999")
    assert sum(job.state == "pending" and job.reason == "Priority" for job in status.jobs) == len(by_job) - 2
    assert status.seconds_left is not None and status.seconds_left > 0

    jobs.store.note_failure(next(iter(records[-1].lanes[0].keys)), "ValueError: why")
    status = suite_status(jobs.plan, jobs.store, jobs.suite, queue)
    assert {job.state for job in status.jobs if job.lane == ended.lane} == {"failed"}
    assert [error for arm in status.arms for error in arm.failures.values()] == ["ValueError: why"]


def test_a_failed_task_and_what_needs_it_are_sent_again_only_when_asked(jobs: Jobs) -> None:
    dense = next(key for key, task in jobs.plan.tasks.items() if not task.inputs)
    others = [k for k, task in jobs.plan.tasks.items() if any(t.key == dense for t in task.inputs)]
    jobs.store.note_failure(dense, "why")
    sent = jobs.submit()
    assert sent.failed == 1 and sent.waiting >= len(others) > 0
    assert sent.tasks == len(jobs.plan.tasks) - 1 - sent.waiting
    assert jobs.submit(jobs.queue(), retry_failed=True).tasks == 1 + sent.waiting
    assert not jobs.store.failures(jobs.plan.tasks)


def test_what_jobs_were_to_do_and_a_later_submission_took_over_is_told_once(jobs: Jobs) -> None:
    jobs.submit()
    jobs.submit()
    status = suite_status(jobs.plan, jobs.store, jobs.suite, {})
    lanes = [job.lane for job in status.jobs]
    assert len(lanes) == len(set(lanes))
