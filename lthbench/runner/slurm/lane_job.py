"""`LaneJob`: what a job of a cluster runs. It is pickled, so it holds only text: paths, names, keys."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lthbench.experiments.cell import is_selection
from lthbench.runner.queue import Outcome, Queue
from lthbench.runner.rounds import run_in_rounds
from lthbench.runner.settings import RunOptions, Settings
from lthbench.runner.slurm.lanes import LaneOwner
from lthbench.runner.stall import stalled_twice
from lthbench.suite.subset import Subset
from lthbench.tasks.atomic import write_atomically
from lthbench.tasks.paths import ENDED
from lthbench.tasks.spec import SCHEMA_VERSION
from lthbench.tasks.store import Store
from lthbench.training.recipe import Engine

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

    from lthbench.runner.signals import Signals
    from lthbench.runner.worker import Asked
    from lthbench.suite.plan import Plan

FORMAT = 4


class JobError(Exception):
    """A job that did not do all its tasks; the message says which, why, and what to do."""


@dataclass(frozen=True)
class JobSpec:
    """The description of a job.

    Attributes:
        suite: path of the suite.
        part: of the suite that was submitted.
        home: the lane's owner.
        keys: key -> the steps that a training must keep.
        store: root of the store.
        options: of the run; the device is resolved where the job runs.
        grace: seconds within which a task must stop when the job's time is up.
        processes: how many the job has; they make each training together.
        engine: what trains in place of what the suite's recipes name.
    """

    suite: Path
    part: Subset
    home: LaneOwner
    keys: dict[str, list[int]]
    store: Path
    options: RunOptions
    grace: float
    processes: int = 1
    engine: Engine | None = None

    def text(self) -> str:
        """JSON, with the versions that a job must agree with."""
        versions = {"format": FORMAT, "schema": SCHEMA_VERSION}
        return json.dumps(versions | asdict(self), default=str)

    @classmethod
    def parse(cls, text: str) -> JobSpec:
        """Read what `text` gave.

        Raises:
            JobError: another version of the program wrote it.
        """
        content: dict[str, Any] = json.loads(text)
        found = content.pop("format"), content.pop("schema")
        if found != (FORMAT, SCHEMA_VERSION):
            raise JobError(
                f"the job was submitted by a version of lthbench with job format {found[0]} and schema {found[1]}, "
                f"this one has {FORMAT} and {SCHEMA_VERSION}; `lthbench cancel` the suite and submit it again"
            )
        part: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["part"].items()}
        options: dict[str, Any] = content["options"]
        options["data"] = Path(options["data"]) if options["data"] else None
        options["plugins"] = tuple(options["plugins"])
        return cls(
            suite=Path(content["suite"]),
            part=Subset(**part),
            home=LaneOwner(**content["home"]),
            keys=content["keys"],
            store=Path(content["store"]),
            options=RunOptions(**options),
            grace=content["grace"],
            processes=content["processes"],
            engine=content["engine"],
        )


class LaneJob:
    """Runs a lane; at the signal before a job's end it stops at a checkpoint and is requeued unchanged."""

    def __init__(self, order: str) -> None:
        self.order = order

    def __call__(self) -> str:
        from lthbench.data.own_sets import know_own_sets
        from lthbench.plugins import load_plugins
        from lthbench.runner.device import DeviceLostError
        from lthbench.runner.signals import Signals
        from lthbench.tasks.context import Interrupted

        order = JobSpec.parse(self.order)
        load_plugins(order.options.plugins, exactly=True)
        know_own_sets(order.options.data)
        settings = order.options.settings(order.store)
        with Signals(order.grace) as signals:
            try:
                if not _leads(order, settings):
                    return "took part in the trainings"
                return run_lane(order, settings, signals.asked, functools.partial(_begin_anew, order, signals))
            except Interrupted as reason:
                print(f"stopped: {reason}", flush=True)
                signals.requeue()
                raise
            except DeviceLostError as reason:
                # The job begins again in a new process, on this machine or another; a task gets two attempts.
                print(f"stopped: {reason}", flush=True)
                signals.requeue()
                raise

    def checkpoint(self) -> DelayedSubmission:
        """What submitit requeues."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(LaneJob(self.order))


def _begin_anew(order: JobSpec, signals: Signals, key: str, seconds: float) -> NoReturn:
    """Requeue a job whose task makes no progress, from a thread, and end this process, which is stuck.

    The second time the task has failed, and the job continues with others.
    """
    store = Store(order.store)
    code: object = 1
    try:
        print(f"stopped: no progress in {seconds:.0f} s at task {key}", flush=True)
        ended = store.folder(key) / ENDED
        if ended.exists():
            store.note_failure(key, stalled_twice(seconds))
        write_atomically(ended, f"{seconds:.0f} s\n".encode())
        signals.requeue()
    except SystemExit as asked:
        code = asked.code
    finally:
        os._exit(code if isinstance(code, int) else 1)


def run_lane(order: JobSpec, settings: Settings, asked: Asked, end: Callable[[str, float], None] | None = None) -> str:
    """Run the tasks of a lane, then those of its experiment that follow from their results.

    Args:
        end: as for `run_here`.

    Raises:
        JobError: some tasks failed, or wait on tasks that are not done.
        StoreError: the store's disk is full or read-only.
        DeviceLostError: the job's GPU can compute nothing more.
    """
    from lthbench.plain import PlainConsole
    from lthbench.runner.local import run_here
    from lthbench.runner.progress import PlainProgress

    console = PlainConsole(soft_wrap=True)
    store = Store(order.store, console.print)
    keys = set(order.keys)

    def plan_now() -> Plan:
        plan = _plan(order, store)
        if gone := [key for key in keys if key not in plan.tasks and not store.is_done(key)]:
            raise JobError(
                f"{order.suite}: has changed since it was submitted: {len(gone)} of {len(keys)} tasks of this job "
                "are no longer in it; submit it again"
            )
        return plan

    def run(plan: Plan, missing: list[str]) -> Outcome:
        # An experiment that plans by results: what these tasks made known (a training to be kept at another step,
        # too) is nobody else's yet.
        known = _known(store)
        new = {key for key in missing if key not in known or not plan.kept(key) <= known[key]}
        keys.update(key for key in new if _adopts(order.home, plan, key))
        failed = store.failures(missing)
        wanted = [key for key in missing if key in keys and key not in failed]
        outcome = Outcome()
        with PlainProgress(plan, wanted, console) as watcher:
            run_here(plan, settings, Queue(plan, missing, wanted), watcher, outcome, asked, end)
        return Outcome(outcome.ran)  # failures are in the store; tasks that wait for other jobs may still run

    plan, outcome = run_in_rounds(plan_now, store, run)
    left = [key for key in store.missing({key: plan.kept(key) for key in plan.tasks}) if key in keys]
    if left:
        failed = store.failures(left)
        reasons = [f"{key} in {store.folder(key)}: {error.strip().splitlines()[-1]}" for key, error in failed.items()]
        raise JobError(
            f"{len(outcome.ran)} tasks ran, {len(failed)} failed, {len(left) - len(failed)} wait on tasks that are not "
            "done; `lthbench status` shows why, `lthbench submit --retry-failed` tries again\n" + "\n".join(reasons)
        )
    return f"{len(outcome.ran)} tasks ran"


def _adopts(home: LaneOwner, plan: Plan, key: str) -> bool:
    """Whether a new task belongs to a lane with this owner: its experiment and replicate.

    Selection replicates choose together: the lane that first knows what is to be tried next tries it for all of them,
    since the others may have ended. What is chosen is made by the tested replicates' own lanes, or sent anew.
    """
    cell = plan.cells[key]
    is_own = cell.replicate == home.replicate or (cell.is_selection and is_selection(home.replicate))
    return is_own and home.experiment in plan.users[key]


def _leads(order: JobSpec, settings: Settings) -> bool:
    """Whether this process runs tasks; where a job has several, the others take part in its trainings."""
    import torch
    from submitit.helpers import TorchDistributedEnvironment

    from lthbench.runner.process_group import join

    if order.processes == 1:
        return True
    place = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if torch.cuda.device_count() <= place.local_rank:  # Slurm has given each process a GPU that it alone sees
        os.environ["LOCAL_RANK"] = "0"
    return join(settings)


def _known(store: Store) -> dict[str, set[int]]:
    """The keys of all submitted jobs, with the steps to be kept."""
    from lthbench.runner.slurm.records import read_records

    known: dict[str, set[int]] = {}
    for record in read_records(store):
        for lane in record.lanes:
            for key, steps in lane.keys.items():
                known.setdefault(key, set()).update(steps)
    return known


def _plan(order: JobSpec, store: Store) -> Plan:
    """The plan of the lane's arm, as far as it follows from results."""
    from lthbench.suite.engine_choice import with_engine
    from lthbench.suite.load import load_suite
    from lthbench.suite.plan import make_plan

    home = order.home
    # What the suite may include was checked when it was submitted.
    arm = replace(order.part, pairs=(home.pair,), arms=(home.arm,))
    suite = with_engine(load_suite(order.suite, allow_outside=True, store=store.root), order.engine)
    plan = make_plan(suite, arm, store.result)
    for key, steps in order.keys.items():
        plan.keep[key] |= set(steps)
    return plan
