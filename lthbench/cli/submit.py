"""`lthbench submit` and `lthbench cancel`: a suite's lanes as jobs of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from lthbench.cli.app import (
    DEFAULT_STORE,
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
    err,
    fail,
    open_store,
    out,
    print_json,
)
from lthbench.runner.settings import STALL_TIMEOUT, Settings
from lthbench.suite.load import load_suite
from lthbench.suite.part import Part
from lthbench.suite.plan import make_plan
from lthbench.suite.schema import Suite
from lthbench.suite.slurm import SlurmOptions, load_profile


class Cluster(str, Enum):
    """Where jobs run: on Slurm, or by submitit's stand-ins for it on this machine."""

    slurm = "slurm"
    local = "local"
    debug = "debug"


ProfileOption = Annotated[str | None, typer.Option("--profile", help="Of your Slurm options; else `default`.")]
SbatchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sbatch",
        metavar="KEY=VALUE",
        help="A further option of sbatch, as licenses=a:1, or exclusive without a value (repeatable).",
    ),
]


@app.command()
def submit(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    allow_outside: OutsideOption = False,
    data: DataOption = None,
    profile: ProfileOption = None,
    partition: Annotated[str | None, typer.Option()] = None,
    time: Annotated[str | None, typer.Option(help="Time limit of a job, as 12:00:00 or 12h.")] = None,
    gpus_per_task: Annotated[int | None, typer.Option()] = None,
    cpus_per_task: Annotated[int | None, typer.Option()] = None,
    mem: Annotated[str | None, typer.Option(help="Memory of a node, as 16G.")] = None,
    account: Annotated[str | None, typer.Option()] = None,
    qos: Annotated[str | None, typer.Option()] = None,
    constraint: Annotated[str | None, typer.Option()] = None,
    nodelist: Annotated[str | None, typer.Option()] = None,
    exclude: Annotated[str | None, typer.Option()] = None,
    sbatch: SbatchOption = None,
    max_running: Annotated[int | None, typer.Option(help="Jobs of one array that run at once.")] = None,
    max_requeues: Annotated[int | None, typer.Option(help="Time limits that a job may meet.")] = None,
    signal_before: Annotated[int | None, typer.Option(help="Seconds between the signal and a job's end.")] = None,
    threads: ThreadsOption = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    checkpoint_every: Annotated[float, typer.Option(min=0, help="Seconds between checkpoints.")] = 60.0,
    stall_timeout: StallOption = STALL_TIMEOUT,
    compiled: Annotated[bool, typer.Option("--compile", help="Train on compiled models.")] = False,
    graphs: GraphsOption = True,
    only: OnlyOption = None,
    pair: PairOption = None,
    arm: ArmOption = None,
    replicates: ReplicatesOption = None,
    levels: LevelsOption = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Send failed tasks out again.")] = False,
    cluster: Annotated[Cluster, typer.Option(help="slurm; local and debug try the jobs out here.")] = Cluster.slurm,
    as_json: JsonOption = False,
) -> None:
    """Send what is missing of a suite to Slurm and return; again, it sends only what is neither done nor in a job.

    Options of jobs come from the suite's `slurm:` section, over it a profile of ~/.config/lthbench/slurm.yaml, over
    that the options given here.
    """
    from lthbench.ops._library import why_not_these_kernels
    from lthbench.runner.scheduler import queued
    from lthbench.runner.submission import submit as submit_plan

    loaded = load_suite(suite, allow_outside=allow_outside)
    given = {
        "partition": partition, "time": time, "gpus_per_task": gpus_per_task, "cpus_per_task": cpus_per_task,
        "mem": mem, "account": account, "qos": qos, "constraint": constraint, "nodelist": nodelist,
        "exclude": exclude, "max_running": max_running, "max_requeues": max_requeues, "signal_before": signal_before,
    }  # fmt: skip
    options = slurm_options(loaded, profile, given, sbatch)
    part = Part(tuple(only or ()), tuple(pair or ()), tuple(arm or ()), replicates, levels)
    target = open_store(store.absolute(), may_be_new=True, tell=err.print)
    plan = make_plan(loaded, part, target.result)
    target.check()
    check_data(plan, data)
    if (reason := why_not_these_kernels("cpu" if device == "auto" else device)) is not None:
        fail(reason)
    settings = Settings(
        target.root, data and data.absolute(), device, threads, checkpoint_every, compiled,
        stall_timeout=stall_timeout, graphs=graphs,
    )  # fmt: skip
    done = submit_plan(
        plan, part, suite, settings, options,
        cluster=cluster.value, retry_failed=retry_failed,
        queue=(lambda: queued(tell=err.print)) if cluster is Cluster.slurm else dict,
    )  # fmt: skip
    if as_json:
        print_json(asdict(done))
        return
    out.print(
        f"{done.tasks} tasks in {done.lanes} jobs ({done.arrays} arrays) sent; {done.queued} tasks were in jobs already"
    )
    if done.failed:
        out.print(f"{done.failed} failed before and {done.waiting} wait on them: --retry-failed sends these too")
    out.print(f"`{again('status', suite)}` tells how far they are, `{again('cancel', suite)}` cancels them")


@app.command()
def cancel(suite: SuiteArgument, store: StoreOption = DEFAULT_STORE) -> None:
    """Cancel a suite's jobs. What is finished stays; submitting the suite again goes on from there."""
    from lthbench.runner import scheduler
    from lthbench.runner.submission import queued_jobs

    jobs = [job.job for _, _, job in queued_jobs(open_store(store), suite, scheduler.queued())]
    scheduler.cancel(jobs)
    out.print(f"{len(jobs)} jobs cancelled; `{again('submit', suite)}` goes on from what is finished")


def slurm_options(
    suite: Suite, profile: str | None, given: dict[str, Any], sbatch: list[str] | None = None
) -> SlurmOptions:
    """A suite's options, the profile's over them, and those of the command line over both."""
    options = suite.slurm.overlaid(load_profile(profile))
    flags = {name: value for name, value in given.items() if value is not None}
    options = options.overlaid(_valid(flags, lambda fault: f"--{fault['loc'][0]} {fault['input']}".replace("_", "-")))
    extra = {}
    for entry in sbatch or ():
        name, equals, value = entry.partition("=")
        extra[name.lstrip("-")] = value if equals else True
    further = _valid({"extra": extra}, lambda fault: "--sbatch").extra
    return options.model_copy(update={"extra": options.extra | further})


def _valid(given: dict[str, Any], option: Callable[[Any], str]) -> SlurmOptions:
    """Options that were given, or the end of this command; `option` names the one that a fault of pydantic's is of."""
    try:
        return SlurmOptions.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        fail(f"{option(fault)}: {fault['msg'].removeprefix('Value error, ')}")
