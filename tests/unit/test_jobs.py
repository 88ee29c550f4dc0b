"""Which jobs are submitted and what is printed of them, with a stand-in for sbatch and a given queue."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from synthetic_store import put_result

from lthbench import api
from lthbench.api import OpenSuite
from lthbench.data.error import DataError
from lthbench.runner.settings import RunOptions
from lthbench.runner.slurm import scheduler
from lthbench.runner.slurm.records import jobs_folder, log_of, read_records
from lthbench.runner.slurm.scheduler import QueuedJob, SchedulerError
from lthbench.runner.slurm.submission import Submission, Submitted, run_on_slurm, submit
from lthbench.runner.status import suite_status
from lthbench.runner.watcher import Watcher
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.slurm_options import SlurmOptions
from lthbench.suite.subset import WHOLE
from lthbench.tasks.store import Store

Queue = dict[tuple[str, int], QueuedJob]


class Jobs:
    """A suite, a store, and a cluster that takes jobs and never runs them."""

    def __init__(self, suite: Path, folder: Path) -> None:
        self.suite, self.folder = suite, folder
        self.store = Store(folder / "store")
        self.store.check()
        self.plan: Plan = make_plan(load_suite(suite))
        (folder / "srun").touch(mode=0o755)
        self.put("scontrol", "echo MaxArraySize = 1001")
        self.answer("echo $$")

    def put(self, name: str, line: str) -> None:
        """Put a line of shell in the place of a program of Slurm."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def answer(self, line: str) -> None:
        self.put("sbatch", line)

    def submit(self, queue: Queue | None = None, retry_failed: bool = False) -> Submitted:
        return submit(self.plan, self.submission(retry_failed), lambda: queue or {})

    def submission(self, retry_failed: bool = False) -> Submission:
        return Submission(suite=self.suite, store=self.store, retry_failed=retry_failed)

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
    jobs.answer("echo $$")
    queue = jobs.queue()  # for Slurm had taken them
    sent = jobs.submit(queue)
    assert sent.queued == sum(len(lane.keys) for lane in record.lanes) > 0
    assert sent.tasks == len(jobs.plan.tasks) - sent.queued
    dependent = [path.read_text() for path in jobs_folder(jobs.store).glob("*/*_submission.sh")]
    assert dependent and all("--dependency=afterany:7_" in text for text in dependent), "they wait for those"


def test_no_array_is_larger_than_the_cluster_allows(jobs: Jobs) -> None:
    jobs.submit()
    sizes = [len(record.lanes) for record in read_records(jobs.store)]
    assert max(sizes) > 2
    jobs.put("scontrol", "echo 'MaxArraySize            = 2'")
    sent = jobs.submit()
    smaller = [len(record.lanes) for record in read_records(jobs.store)][len(sizes) :]
    assert max(smaller) == 2 and sum(smaller) == sum(sizes) and sent.arrays == len(smaller)


@pytest.mark.parametrize("answer", ["echo '412;second'", "echo 'sbatch: lua: account is me'; echo 412; echo"])
def test_the_number_of_jobs_is_read_from_what_sbatch_says_to_programs(answer: str, jobs: Jobs) -> None:
    jobs.answer(f'[ "$1" = --parsable ] && {{ {answer}; }}')
    jobs.submit()
    records = list(read_records(jobs.store))
    assert {record.job for record in records} == {"412"}
    for record in records:
        folder = jobs_folder(jobs.store) / record.name
        for index in range(len(record.lanes)):
            assert (folder / f"{record.job_of(index)}_submitted.pkl").exists(), "where the job looks for its order"


def test_a_submission_that_was_suspended_while_another_went_on_sends_nothing_more(jobs: Jobs) -> None:
    lease = jobs_folder(jobs.store) / "lease"
    # While it sends its first array it sleeps, until another has waited for 90 s and taken its lease.
    jobs.answer(f"""echo '{{"owner": "another", "machine": "far away"}}' >{lease}; echo $$""")
    with pytest.raises(SchedulerError, match=r"another submission went on while this one was suspended.*submit again"):
        jobs.submit()
    assert len(list(read_records(jobs.store))) == 1
    lease.unlink()


def test_an_answer_of_sbatch_without_a_number_is_reported(jobs: Jobs) -> None:
    jobs.answer("echo queued, thanks")
    with pytest.raises(SchedulerError, match="sbatch said 'queued, thanks', and no job's number"):
        jobs.submit()


def test_the_environment_does_not_name_jobs_or_stop_them_otherwise(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SBATCH_JOB_NAME", "mine")
    monkeypatch.setenv("SBATCH_SIGNAL", "USR1@5")
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-3")
    monkeypatch.setenv("SBATCH_RESERVATION", "ours")
    jobs.answer(f"env | grep ^SBATCH_ >{jobs.folder}/seen; echo $$")
    jobs.submit()
    assert (jobs.folder / "seen").read_text() == "SBATCH_RESERVATION=ours\n"


def test_a_controller_that_is_down_does_not_end_the_waiting(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "_PAUSES", (1e-3, 1e-3))
    down = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    # Once jobs are sent it is down; then one of them is there; then it is down, and then there is none.
    jobs.put("squeue", "exit 0")
    answers = iter([*["down"] * 9, "queued", *["down"] * 5, "gone"])
    call = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if command[0] != "squeue" or not (records := list(read_records(jobs.store))):
            return call(command, **options)
        answer = next(answers)
        if answer == "down":
            return subprocess.CompletedProcess(command, 1, "", down)
        line = f"7_0|RUNNING|1:00|None|{records[-1].name}\n" if answer == "queued" else ""
        return subprocess.CompletedProcess(command, 0, line, "")

    monkeypatch.setattr(scheduler.subprocess, "run", run)
    told: list[str] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "told", told.append)
    outcome = run_on_slurm(jobs.plan, jobs.submission(), watcher, missing=list(jobs.plan.tasks), poll=0.01)
    assert next(answers, None) is None, "it waited until the jobs were gone"
    assert len(outcome.blocked) == len(jobs.plan.tasks) and sum(down in text for text in told) == 1


@pytest.mark.parametrize("command", ["submit", "run"])
def test_damaged_data_are_reported_before_anything_is_queued(command: str, jobs: Jobs) -> None:
    jobs.suite.write_text(jobs.suite.read_text().replace("fashion-mnist-10k", "cifar10"))
    folder = jobs.folder / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(b"cut short")
    opened = OpenSuite(jobs.suite, load_suite(jobs.suite), jobs.store)
    options = RunOptions(data=jobs.folder / "data")
    with pytest.raises(DataError, match="cifar-10-batches-py"):
        if command == "submit":
            api.submit(opened, WHOLE, options, SlurmOptions())
        else:
            api.run(opened, WHOLE, options, SlurmOptions())
    assert not jobs_folder(jobs.store).exists()


def test_jobs_wait_for_the_jobs_whose_results_they_need_and_for_no_others(jobs: Jobs) -> None:
    jobs.submit()
    texts = [path.read_text() for path in jobs_folder(jobs.store).glob("*/*_submission.sh")]
    waiting = [text for text in texts if "--dependency=" in text]
    assert 0 < len(waiting) < len(texts)
    numbers = {record.job for record in read_records(jobs.store)}
    for text in waiting:
        named = text.partition("--dependency=afterany:")[2].split()[0].split(":")
        assert {job.partition("_")[0] for job in named} <= numbers


def test_status_lists_jobs_by_state(jobs: Jobs) -> None:
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


def test_what_a_later_submission_took_over_from_jobs_is_reported_once(jobs: Jobs) -> None:
    jobs.submit()
    jobs.submit()
    status = suite_status(jobs.plan, jobs.store, jobs.suite, {})
    lanes = [job.lane for job in status.jobs]
    assert len(lanes) == len(set(lanes))
