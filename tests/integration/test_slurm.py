"""A suite's jobs on Slurm, and on submitit's stand-in for it: the results of a local run, whatever happens to them.

`ci/slurm.sh pytest tests/integration/test_slurm.py -k on_slurm` runs the first on a Slurm of this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lthbench.tasks.store import LAYOUT

TINY = """\
title: jobs
replicates: 1
pairs:
  tiny:
    model: {name: lenet-300-100, width: 10}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 300}
    recipe:
      steps: 3ep
      batch_size: 64
      optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
    arms: {early: {}, late: {recipe: {optimizer: {lr: 0.2}}}}
    experiments:
      imp: {levels: 1}
      crossed-masks: {levels: [1], arms: [early]}
      onset: {grid: [0it, 1ep, 2ep], points: 3, num_train: 100, arms: [late]}
"""
# One training, whose length `lasting` sets.
LONG = """\
title: a long training
replicates: 1
pairs:
  long:
    model: {name: resnet8, width: 4}
    data: {name: fashion-mnist-10k, validation: 100, num_train: 640}
    recipe:
      steps: EPOCHSep
      batch_size: 32
      optimizer: {name: sgd, lr: 0.05, momentum: 0.9}
      augment: {flip: true}
    arms: {only: {}}
    experiments: {imp: {levels: 0}}
"""


def has_slurm() -> bool:
    """Whether a Slurm answers here."""
    return shutil.which("squeue") is not None and subprocess.run(["squeue"], capture_output=True).returncode == 0


needs_slurm = pytest.mark.skipif(not has_slurm(), reason="no Slurm answers here; `ci/slurm.sh pytest ...` runs one")


def lthbench(*arguments: str | Path, code: int = 0) -> str:
    """Run a command to its end and return its output."""
    done = subprocess.run([sys.executable, "-m", "lthbench", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def results(store: Path) -> dict[str, Any]:
    """Everything that was measured, but for times."""
    found = {}
    for path in store.glob("tasks/*/*/result.json"):
        result = json.loads(path.read_text())
        found[path.parent.name] = {k: v for k, v in result.items() if k not in ("seconds", "finished", "digest")}
    return found


def until(true: Callable[[], bool], seconds: float = 240) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.3)  # asking Slurm takes a processor that its jobs could have


def queue() -> list[str]:
    """The user's jobs as Slurm has them: id, state and, where they wait, why."""
    return subprocess.run(
        ["squeue", "--me", "-rh", "-o", "%i %T %r"], capture_output=True, text=True
    ).stdout.splitlines()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    if has_slurm():
        subprocess.run(["scancel", "--me"], check=True)


@pytest.fixture
def suite(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        return path

    return write


class Undisturbed:
    """The same in one process (or by so many at each training), started at once and waited for when it is asked."""

    def __init__(self, text: str, processes: int, folder: Path) -> None:
        self.store = folder / "store"
        (folder / "suite.yaml").write_text(text)
        command = ("run", folder / "suite.yaml", "--store", self.store, "--executor", "debug", "--device", "cpu")
        words = map(str, (*command, "--processes-per-task", processes))
        self.process = subprocess.Popen([sys.executable, "-m", "lthbench", *words], stdout=subprocess.DEVNULL)

    def results(self) -> dict[str, Any]:
        assert self.process.wait() == 0
        return results(self.store)


Straight = Callable[..., Undisturbed]


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Straight:
    """The results of a suite that runs undisturbed, and beside what is compared with it."""
    found: dict[tuple[str, int], Undisturbed] = {}

    def run(text: str, processes: int = 1) -> Undisturbed:
        if (text, processes) not in found:
            found[text, processes] = Undisturbed(text, processes, tmp_path_factory.mktemp("straight"))
        return found[text, processes]

    return run


def lasting(seconds: float, folder: Path) -> str:
    """The suite of one training that lasts so long on this machine."""
    folder.mkdir()
    (folder / "suite.yaml").write_text(LONG.replace("EPOCHS", "30"))
    options = ("--store", folder / "store", "--executor", "debug", "--device", "cpu", "--no-report")
    lthbench("run", folder / "suite.yaml", *options)
    (result,) = (folder / "store").glob("tasks/*/*/result.json")
    return LONG.replace("EPOCHS", str(round(30 * seconds / json.loads(result.read_text())["seconds"])))


@needs_slurm
def test_a_suite_on_slurm_has_the_results_of_a_local_run(
    suite: Callable[[str], Path], straight: Straight, tmp_path: Path
) -> None:
    path, store, undisturbed = suite(TINY), tmp_path / "store", straight(TINY)
    options = ("--store", store, "--device", "cpu", "--time", "10min", "--json")
    both = [
        subprocess.Popen([sys.executable, "-m", "lthbench", "submit", path, *options], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    sent = [json.loads(process.communicate()[0]) for process in both]
    assert sorted(s["lanes"] > 0 for s in sent) == [False, True], "of two submissions at once, one finds all sent"
    # Crossed masks wait for the other arm's.
    until(lambda: any(job.endswith("Dependency") for job in queue()))
    again = json.loads(lthbench("submit", path, *options))
    assert again["lanes"] == 0, "what is queued, running or done is not sent again"
    status = json.loads(lthbench("status", path, "--store", store, "--json"))
    assert {job["state"] for job in status["jobs"]} <= {"running", "pending", "configuring", "completing"}
    lthbench("run", path, "--store", store, "--executor", "slurm", "--device", "cpu")
    assert results(store) == undisturbed.results()
    assert json.loads(lthbench("submit", path, *options))["lanes"] == 0
    assert json.loads(lthbench("status", path, "--store", store, "--json"))["jobs"] == []


def test_a_suite_on_the_local_stand_in_has_the_results_of_a_local_run(
    suite: Callable[[str], Path], straight: Straight, tmp_path: Path
) -> None:
    undisturbed = straight(TINY)
    lthbench("submit", suite(TINY), "--store", tmp_path / "store", "--cluster", "local", "--device", "cpu")
    assert results(tmp_path / "store") == undisturbed.results()


def holder(store: Path) -> dict[str, Any] | None:
    """Who is at work on a task of a store."""
    for path in store.glob("tasks/*/*/lease"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            who: dict[str, Any] = json.loads(path.read_text())
            return who
    return None


def at_work(store: Path, but: int = 0) -> int:
    """Wait until a process is at work on a task, another than `but`, and return its number."""
    until(lambda: (who := holder(store)) is not None and who["pid"] != but)
    who = holder(store)
    assert who is not None
    return int(who["pid"])


def restarts(job: str) -> int:
    """How often Slurm has started a job again."""
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
    return int(shown.partition("Restarts=")[2].split()[0])


def minutes(job: str) -> int:
    """How many whole minutes a job has run since it was last started."""
    ran = subprocess.run(["squeue", "-h", "-j", job, "-o", "%M"], capture_output=True, text=True, check=True).stdout
    return int(ran.strip().rpartition(":")[0])


def limit_to(job: str, minutes: int) -> None:
    subprocess.run(["scontrol", "update", f"jobid={job}", f"timelimit={minutes}"], check=True)


def checkpoint(store: Path) -> Path | None:
    return next(iter(store.glob("tasks/*/*/checkpoint.safetensors")), None)


@needs_slurm
def test_time_limit_requeue_and_a_dead_node_on_slurm_leave_the_bits_of_an_undisturbed_training(
    suite: Callable[[str], Path], straight: Straight, tmp_path: Path
) -> None:
    text = lasting(45, tmp_path / "short")
    # Checkpoints are written at signals alone. On a busy machine one may come before the first step, and come again.
    path, store = suite(f"{text}slurm: {{time: 60min, signal_before: 90, max_requeues: 20}}\n"), tmp_path / "store"
    lthbench("submit", path, "--store", store, "--device", "cpu", "--checkpoint-every", "100000")
    first, job = at_work(store), queue()[0].split()[0]
    # It has begun its work, which the signal ends within half a minute: 90 s before the two minutes are over.
    limit_to(job, minutes(job) + 2)
    until(lambda: restarts(job) >= 1 and checkpoint(store) is not None)

    undisturbed = straight(text)
    limit_to(job, 60)
    second = at_work(store, but=first)
    before = restarts(job)
    subprocess.run(["scontrol", "requeue", job], check=True)
    until(lambda: restarts(job) > before)

    third = at_work(store, but=second)
    before = restarts(job)
    # The machine dies: the job, and all of Slurm that is on it.
    config = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True).stdout
    pids = config.partition("SlurmdPidFile")[2].split()[1]
    node = subprocess.run(["squeue", "-h", "-j", job, "-o", "%N"], capture_output=True, text=True).stdout.strip()
    daemon = Path(pids.replace("%n", node))
    steps = subprocess.run(["pgrep", "-x", "slurmstepd"], capture_output=True, text=True).stdout.split()
    for pid in (int(daemon.read_text()), *map(int, steps), third):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: restarts(job) > before)
    subprocess.run(["slurmd", "-N", node], check=True)

    until(lambda: not queue())
    assert results(store) == undisturbed.results()
    assert checkpoint(store) is None and holder(store) is None


@needs_slurm
@pytest.mark.parametrize("where", ["tasks_per_node: 2", "nodes: 2"])
def test_two_processes_of_a_job_on_slurm_make_the_bits_of_two_that_a_run_starts(
    where: str, suite: Callable[[str], Path], straight: Straight, tmp_path: Path
) -> None:
    text = LONG.replace("EPOCHS", "8").replace("levels: 0", "levels: 1")
    path, store, undisturbed = suite(f"{text}slurm: {{{where}, time: 10min}}\n"), tmp_path / "store", straight(text, 2)
    lthbench("submit", path, "--store", store, "--device", "cpu", "--checkpoint-every", "100000")
    if where == "nodes: 2":
        pid, job = at_work(store), queue()[0].split()[0]
        # What Slurm tells all of its processes before the time limit.
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
        until(lambda: restarts(job) >= 1)
        assert checkpoint(store) is not None, "the job requeued itself without a checkpoint"
        at_work(store, but=pid)
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True).stdout
        assert "NumNodes=2" in shown
    until(lambda: not queue())
    assert results(store) == undisturbed.results()
    assert {result["environment"]["processes"] for result in results(store).values()} == {2}


def test_a_job_that_is_stopped_by_its_signal_goes_on_from_a_checkpoint_to_the_same_bits(
    suite: Callable[[str], Path], straight: Straight, tmp_path: Path
) -> None:
    text = LONG.replace("EPOCHS", "30")
    path, store, undisturbed = suite(text), tmp_path / "store", straight(text)
    command = [sys.executable, "-m", "lthbench", "submit", path, "--store", store, "--cluster", "local"]
    waiting = subprocess.Popen([*command, "--device", "cpu", "--checkpoint-every", "100000"])
    pid = at_work(store)
    os.kill(pid, signal.SIGUSR2)
    at_work(store, but=pid)
    assert checkpoint(store) is not None
    assert waiting.wait() == 0
    assert results(store) == undisturbed.results()


@needs_slurm
def test_a_job_on_slurm_gives_up_after_so_many_time_limits_and_the_next_submission_goes_on(
    suite: Callable[[str], Path], straight: Straight, tmp_path: Path
) -> None:
    text = LONG.replace("EPOCHS", "30")
    path, store, undisturbed = suite(text), tmp_path / "store", straight(text)
    options = ("--store", store, "--device", "cpu", "--checkpoint-every", "100000", "--time", "10min")
    lthbench("submit", path, *options, "--max-requeues", "0")
    at_work(store)
    subprocess.run(["scancel", "--signal=USR2", queue()[0].split()[0]], check=True)
    until(lambda: not queue())
    status = json.loads(lthbench("status", path, "--store", store, "--json"))
    (job,) = status["jobs"]
    assert job["state"] == "ended" and "timed-out too many times" in job["last_lines"], job
    told = lthbench("status", path, "--store", store)
    assert job["log"] in told and "goes on with what jobs that ended have left" in told
    assert checkpoint(store) is not None
    lthbench("submit", path, *options)
    until(lambda: not queue())
    assert results(store) == undisturbed.results()


@needs_slurm
def test_a_job_on_slurm_that_hangs_is_requeued_and_goes_on_to_the_same_bits(
    suite: Callable[[str], Path], straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In the job's Python, SIGHUP makes the training hang, which is noticed after seconds instead of a minute.
    (tmp_path / "job").mkdir()
    (tmp_path / "job/sitecustomize.py").write_text(
        "import signal, time\n"
        "from lthbench.runner import stall\n"
        "stall.LEAST = 2.0\n"
        "signal.signal(signal.SIGHUP, lambda *_: time.sleep(3600))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "job"), prepend=os.pathsep)
    text = LONG.replace("EPOCHS", "30")
    path, store, undisturbed = suite(text), tmp_path / "store", straight(text)
    options = ("--device", "cpu", "--checkpoint-every", "0.2", "--time", "10min", "--stall-timeout", "3")
    lthbench("submit", path, "--store", store, *options)
    hung = at_work(store)
    until(lambda: checkpoint(store) is not None)  # of its pace something is known
    job = queue()[0].split()[0]
    os.kill(hung, signal.SIGHUP)
    until(lambda: restarts(job) >= 1)
    until(lambda: not queue())
    (log,) = tmp_path.glob(f"store/**/{job}*.out")
    assert "no progress in" in log.read_text()
    assert results(store) == undisturbed.results()


@needs_slurm
def test_cancelled_jobs_on_slurm_leave_what_is_finished(suite: Callable[[str], Path], tmp_path: Path) -> None:
    path, store = suite(LONG.replace("EPOCHS", "100000")), tmp_path / "store"
    lthbench("submit", path, "--store", store, "--device", "cpu", "--time", "10min")
    at_work(store)
    assert "1 jobs cancelled" in lthbench("cancel", path, "--store", store)
    until(lambda: not queue())
    (job,) = json.loads(lthbench("status", path, "--store", store, "--json"))["jobs"]
    assert job["state"] == "ended" and checkpoint(store) is not None, "a training writes a checkpoint when cancelled"


@needs_slurm
def test_a_failed_task_on_slurm_fails_what_needs_it_and_is_tried_again_when_asked(
    suite: Callable[[str], Path], straight: Straight, tmp_path: Path
) -> None:
    check_failure("slurm", suite, straight, tmp_path)


def test_a_failed_task_of_the_local_stand_in_fails_what_needs_it_and_is_tried_again_when_asked(
    suite: Callable[[str], Path], straight: Straight, tmp_path: Path
) -> None:
    check_failure("debug", suite, straight, tmp_path)


def check_failure(cluster: str, suite: Callable[[str], Path], straight: Straight, tmp_path: Path) -> None:
    """A task that cannot write its result."""
    text = TINY.replace("      onset:", "      #")
    path, store = suite(text), tmp_path / "store"
    expected = straight(text).results()
    mask = next(key for key, result in expected.items() if "digests" in result and "mask" in result["digests"])
    # A folder where the mask's file belongs, so that it cannot be written.
    (store / "tasks" / mask[:2] / mask / "mask.safetensors" / "in the way").mkdir(parents=True)
    (store / "lthbench-store").write_text(f"{LAYOUT}\n")
    options = ("--store", store, "--device", "cpu", "--cluster", cluster)
    lthbench("submit", path, *options)
    until(lambda: cluster != "slurm" or not queue())
    status = json.loads(lthbench("status", path, "--store", store, "--json"))
    failures = {key for arm in status["arms"] for key in arm["failures"]}
    assert failures == {mask}
    missing = expected.keys() - results(store).keys()
    assert mask in missing and len(missing) == 3, "the mask, its ticket, and that of the other arm"
    assert "IsADirectoryError" in lthbench("status", path, "--store", store)
    sent = json.loads(lthbench("submit", path, *options, "--json"))
    assert (sent["lanes"], sent["failed"], sent["waiting"]) == (0, 1, 2)
    shutil.rmtree(store / "tasks" / mask[:2] / mask / "mask.safetensors")
    lthbench("submit", path, *options, "--retry-failed")
    until(lambda: cluster != "slurm" or not queue())
    assert results(store) == expected


def test_a_job_of_another_schema_version_is_refused(
    suite: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lthbench.runner.settings import RunOptions, Settings
    from lthbench.runner.slurm import lane_job
    from lthbench.runner.slurm.lanes import LaneOwner
    from lthbench.suite.subset import Subset

    order = lane_job.JobSpec(
        suite(TINY),
        Subset(),
        LaneOwner("tiny", "early", 0, "imp"),
        {"0" * 32: []},
        tmp_path,
        RunOptions(data=tmp_path),
        1.0,
    )
    assert lane_job.JobSpec.parse(order.text()) == order
    with pytest.raises(lane_job.JobError, match=r"has changed since it was submitted: 1 of 1 tasks.*submit it again"):
        lane_job.run_lane(order, Settings(tmp_path), lambda: None)
    text = order.text()
    now = lane_job.SCHEMA_VERSION
    monkeypatch.setattr(lane_job, "SCHEMA_VERSION", now + 1)
    with pytest.raises(
        lane_job.JobError, match=rf"schema {now}, this one has {lane_job.FORMAT} and {now + 1}; .*submit it again"
    ):
        lane_job.JobSpec.parse(text)
