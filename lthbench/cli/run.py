"""`lthbench run`: what is missing of a suite, on this machine."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lthbench.cli.app import (
    DEFAULT_STORE,
    MAX_PROCESSES,
    ArmOption,
    DataOption,
    GraphsOption,
    JsonOption,
    LevelsOption,
    OnlyOption,
    OutsideOption,
    PairOption,
    ReplicatesOption,
    StallOption,
    StoreOption,
    SuiteArgument,
    ThreadsOption,
    again,
    app,
    check_data,
    chosen_device,
    err,
    fail,
    open_store,
    out,
)
from lthbench.cli.export import tensorboard_exporter
from lthbench.cli.report import default_folder
from lthbench.cli.results import print_results, print_summary
from lthbench.cli.submit import ProfileOption, SbatchOption, slurm_options
from lthbench.cli.verdicts import find_verdicts, note_look, print_verdicts, tell_of_reference
from lthbench.runner.queue import last_line
from lthbench.runner.settings import STALL_TIMEOUT, Settings, num_ranks
from lthbench.runner.store import Store
from lthbench.suite.load import load_suite
from lthbench.suite.part import Part
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.schema import Suite
from lthbench.tasks.spec import TrainSpec


class Executor(str, Enum):
    """Where the tasks of a run are run: in worker processes, in this process, or by jobs of a cluster."""

    local = "local"
    debug = "debug"
    slurm = "slurm"


@app.command()
def run(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    allow_outside: OutsideOption = False,
    data: DataOption = None,
    executor: Annotated[
        Executor, typer.Option(help="local: worker processes; debug: this one; slurm: jobs, as by submit, and wait.")
    ] = Executor.local,
    profile: ProfileOption = None,
    sbatch: SbatchOption = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_PROCESSES, help="Processes; 0 runs in this one. Default: one a core, or --per-device a GPU."
        ),
    ] = None,
    per_device: Annotated[
        int, typer.Option(min=1, max=MAX_PROCESSES, help="Worker processes a GPU, for small networks.")
    ] = 1,
    threads: ThreadsOption = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs) or cuda:N.")] = "auto",
    checkpoint_every: Annotated[
        float, typer.Option(min=0, help="Seconds between checkpoints within a training; changes no result.")
    ] = 60.0,
    stall_timeout: StallOption = STALL_TIMEOUT,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Train on compiled models: faster after a minute; other bits.")
    ] = False,
    graphs: GraphsOption = True,
    processes: Annotated[
        int,
        typer.Option(
            "--processes-per-task",
            min=1,
            max=MAX_PROCESSES,
            help="Processes that make one training, a GPU each; other bits.",
        ),
    ] = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed tasks again.")] = False,
    only: OnlyOption = None,
    pair: PairOption = None,
    arm: ArmOption = None,
    replicates: ReplicatesOption = None,
    levels: LevelsOption = None,
    as_json: JsonOption = False,
    with_report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write the report at the end.", envvar="LTHBENCH_REPORT")
    ] = True,
    tensorboard: Annotated[
        Path | None, typer.Option(help="At the end, write the trainings' TensorBoard event files into this folder.")
    ] = None,
) -> None:
    """Run what is missing of a suite, then show its results. Running a finished suite again trains nothing."""
    from lthbench.ops._library import why_no_kernels, why_not_these_kernels
    from lthbench.runner.local import Watcher, run_plan
    from lthbench.runner.queue import Outcome
    from lthbench.runner.submission import run_on_slurm

    def settings_now() -> Settings:
        found = _settings(store, data, device, threads, checkpoint_every, compiled, processes)
        return replace(found, stall_timeout=stall_timeout, graphs=graphs)

    export = tensorboard_exporter() if tensorboard is not None else None
    loaded = load_suite(suite, allow_outside=allow_outside)
    part = Part(tuple(only or ()), tuple(pair or ()), tuple(arm or ()), replicates, levels)
    target = open_store(store.absolute(), may_be_new=True, tell=err.print)
    plan = make_plan(loaded, part, target.result)
    target.check()
    if num_ranks() > 1:
        from lthbench.runner.ranks import join

        executor = Executor.debug
        if not join(settings_now()):
            return

    def prepare() -> Callable[[Plan, list[str], Watcher], Outcome]:
        """Make sure that tasks can be run, and return what runs those that are missing of a plan."""
        check_data(plan, data)
        if executor is Executor.slurm:
            options = slurm_options(loaded, profile, {}, sbatch)
            of_jobs = Settings(
                target.root, data and data.absolute(), device, threads, checkpoint_every, compiled,
                stall_timeout=stall_timeout, graphs=graphs,
            )  # fmt: skip
            return lambda plan, missing, watcher: run_on_slurm(
                plan, part, suite, of_jobs, options, watcher, missing=missing, retry_failed=retry_failed
            )
        settings = settings_now()
        if (reason := why_not_these_kernels(settings.device)) is not None:
            fail(reason)
        if (reason := why_no_kernels(settings.device)) is not None:
            err.print(f"no kernels ({reason}): the plain PyTorch reference computes, slower")
        devices = _devices(settings)
        cores = max(1, len(os.sched_getaffinity(0)) // processes)
        count = cores if settings.device == "cpu" else per_device * len(devices)
        count = 0 if executor is Executor.debug else count if workers is None else workers
        return lambda plan, missing, watcher: run_plan(
            plan, settings, count, watcher, missing=missing, devices=devices, retry_failed=retry_failed
        )

    go = None
    begun = time.monotonic()
    ran: set[str] = set()
    told: set[str] = set()
    outcome = Outcome()
    while missing := target.missing({key: plan.kept(key) for key in plan.tasks}):
        from lthbench.runner.progress import LiveProgress, PlainProgress

        go = go or prepare()
        try:
            with (LiveProgress if err.is_terminal else PlainProgress)(plan, missing, err) as watcher:
                outcome = go(plan, missing, watcher)
        except KeyboardInterrupt:
            jobs = f"; jobs that are queued stay: `{again('cancel', suite)}` cancels them"
            err.print(
                f"interrupted; nothing finished is lost: `{shlex.join(['lthbench', *sys.argv[1:]])}` goes on from here"
                + (jobs if executor is Executor.slurm else "")
            )
            sys.exit(130)
        ran.update(outcome.ran)
        told |= watcher.reasons
        if outcome.failed or not outcome.ran:
            break
        # What was learnt may have made more tasks known.
        plan = make_plan(loaded, part, target.result)
    seconds = time.monotonic() - begun
    if export is not None and tensorboard is not None:
        export(plan, target, tensorboard)
    if as_json:
        print_results(plan, target, "json")
    else:
        print_summary(plan, target)
        if loaded.claims and (verdicts := find_verdicts(make_plan(loaded, result_of=target.result), target, suite)):
            print_verdicts(verdicts, with_parts=False)
            note_look(loaded, target, verdicts)
        tell_of_reference(plan, target, out)
        # What diverged takes tasks out of the plan, of which some may have run by then.
        before = len(plan.tasks.keys() - ran) - len(outcome.failed) - len(outcome.blocked)
        out.print(
            f"{len(plan.tasks)} tasks: {len(ran)} run now in {seconds:.0f} s, {before} done before. "
            f"Results: {store.absolute()}; "
            f"`{again('results', suite, '--csv')}` prints every number."
        )
        if with_report:
            _report(suite, loaded, target)
    all_diverged = _tell_diverged(plan, target, err if as_json else out)
    if outcome.failed:
        for reason, keys in _by_reason(outcome.failed).items():
            if reason not in told:
                more = f" (and {len(keys) - 1} more tasks)" if len(keys) > 1 else ""
                err.print(f"failed: {keys[0]} in {target.folder(keys[0])}{more}: {reason}")
        err.print(
            f"{len(outcome.failed)} tasks failed, {len(outcome.blocked)} wait on them; "
            f"`{again('status', suite)}` tells where, `{again('run', suite, '--retry-failed')}` tries them again"
        )
        sys.exit(1)
    if outcome.blocked:
        err.print(
            f"{len(outcome.blocked)} tasks are left by jobs that ended early; `{again('status', suite)}` tells why"
        )
    if outcome.blocked or all_diverged:
        sys.exit(1)


def _by_reason(failed: Mapping[str, str]) -> dict[str, list[str]]:
    """Why tasks failed -> their keys."""
    reasons: dict[str, list[str]] = {}
    for key, error in failed.items():
        reasons.setdefault(last_line(error), []).append(key)
    return reasons


def _tell_diverged(plan: Plan, store: Store, console: Console) -> bool:
    """Tell how many trainings diverged, if any did; return whether all did, so that nothing was measured."""
    found = [(task.spec, result) for key, task in plan.tasks.items() if (result := store.result(key)) is not None]
    trainings = [result["status"] for spec, result in found if isinstance(spec, TrainSpec)]
    refused = sum(result["status"] == "refused" for _, result in found)
    diverged = trainings.count("diverged")
    all_diverged = 0 < diverged == len(trainings) - trainings.count("refused")
    if all_diverged:
        err.print(f"every training diverged ({diverged:,}): nothing was measured; lower the learning rates")
    elif diverged:
        console.print(
            f"{diverged:,} of {len(trainings):,} trainings diverged; {refused:,} tasks that need them were refused"
        )
    return all_diverged


def _report(suite: Path, loaded: Suite, store: Store) -> None:
    """Write the report of the whole suite; that it cannot be written is told, and fails nothing."""
    from lthbench.analysis.report.write import write_report

    try:
        page = write_report(make_plan(loaded, result_of=store.result), store, default_folder(suite, store.root), suite)
    except Exception as error:
        err.print(f"no report: {type(error).__name__}: {error}; `{again('report', suite)}` tries again")
    else:
        out.print(f"Report: {page}")


def _settings(
    store: Path, data: Path | None, device: str, threads: int, checkpoint_every: float, compiled: bool, processes: int
) -> Settings:
    """The settings that the options ask for, or the end of this command with the reason why they cannot be."""
    import torch

    chosen = torch.device(chosen_device(device))
    if processes > 1 and num_ranks() > 1:
        fail(f"--processes-per-task {processes}: {num_ranks()} processes were started for each task; leave it out")
    if max(processes, num_ranks()) > 1 and compiled:
        fail("--compile: a training over several processes cannot be compiled; leave it out")
    if chosen.type == "cuda" and (chosen.index or 0) + processes > torch.cuda.device_count():
        fail(
            f"--processes-per-task {processes}: each takes a GPU, from {chosen} on, and this machine has "
            f"{torch.cuda.device_count()}; give a smaller number"
        )
    return Settings(store.absolute(), data, str(chosen), threads, checkpoint_every, compiled, processes)


def _devices(settings: Settings) -> list[str]:
    """What workers are spread over: the device that was named, or as many groups of GPUs as there are."""
    import torch

    if settings.device != "cuda":
        return [settings.device]
    return [
        f"cuda:{first}" for first in range(0, torch.cuda.device_count() + 1 - settings.processes, settings.processes)
    ]
