"""`lthbench submit` and `lthbench cancel`: a suite's lanes as jobs of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from lthbench import api
from lthbench.api import Source
from lthbench.cli.app import JsonOption, RetryOption, again, app, err, fail, out, print_json
from lthbench.cli.parameters import Only, with_options
from lthbench.options import Option
from lthbench.runner.settings import RunOptions
from lthbench.suite.schema import Suite
from lthbench.suite.shipped import find_suite
from lthbench.suite.slurm_options import SlurmOptions, load_profile
from lthbench.suite.subset import Subset


class Cluster(str, Enum):
    """Where jobs run: on Slurm, or by submitit's stand-ins for it on this machine."""

    slurm = "slurm"
    local = "local"
    debug = "debug"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Overrides of a suite's Slurm options."""

    profile: Annotated[str | None, Option("Your profile of Slurm options, if not `default`.", "--profile")] = None
    sbatch: Annotated[
        tuple[str, ...],
        Option(
            "Another option of sbatch, such as licenses=a:1, or exclusive without a value (repeatable).",
            "--sbatch",
            metavar="KEY=VALUE",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class JobOptions(Profile):
    """Overrides of both, by the names of `SlurmOptions`; None if not given."""

    partition: Annotated[str | None, Option("As sbatch's; so are the options below.", "--partition")] = None
    time: Annotated[str | None, Option("Time limit of a job, such as 12:00:00 or 12h.", "--time")] = None
    gpus_per_task: Annotated[int | None, Option("GPUs per process.", "--gpus-per-task")] = None
    cpus_per_task: Annotated[int | None, Option("CPU cores per process.", "--cpus-per-task")] = None
    mem: Annotated[str | None, Option("Memory per node, such as 16G.", "--mem")] = None
    account: Annotated[str | None, Option("", "--account")] = None
    qos: Annotated[str | None, Option("", "--qos")] = None
    constraint: Annotated[str | None, Option("", "--constraint")] = None
    nodelist: Annotated[str | None, Option("", "--nodelist")] = None
    exclude: Annotated[str | None, Option("", "--exclude")] = None
    max_running: Annotated[int | None, Option("Jobs of an array that may run at once.", "--max-running")] = None
    max_requeues: Annotated[
        int | None, Option("How often a job may be requeued at its time limit.", "--max-requeues")
    ] = None
    signal_before: Annotated[int | None, Option("Seconds between the signal and a job's end.", "--signal-before")] = (
        None
    )


@app.command()
@with_options
def submit(
    source: Source,
    part: Subset,
    options: RunOptions,
    slurm: JobOptions,
    retry_failed: RetryOption = False,
    cluster: Annotated[Cluster, typer.Option(help="slurm; local and debug try the jobs out here.")] = Cluster.slurm,
    as_json: JsonOption = False,
) -> None:
    """Submit a suite's missing tasks to Slurm and return; tasks that are done or in a job are not submitted again.

    Job options come from the suite's `slurm:` section, overridden by a profile in ~/.config/lthbench/slurm.yaml,
    overridden by the options given here.
    """
    opened = api.open_suite(source, may_be_new=True, tell=err.print)
    done = api.submit(
        opened, part, options, slurm_options(opened.suite, slurm),
        cluster=cluster.value, retry_failed=retry_failed, tell=err.print,
    )  # fmt: skip
    suite = opened.path
    if as_json:
        print_json(asdict(done))
        return
    out.print(
        f"{done.tasks} tasks in {done.lanes} jobs ({done.arrays} arrays) sent; {done.queued} tasks were in jobs already"
    )
    if done.failed:
        out.print(f"{done.failed} failed before and {done.waiting} wait on them: --retry-failed sends these too")
    out.print(f"`{again('status', suite)}` shows their progress, `{again('cancel', suite)}` cancels them")


@app.command()
@with_options
def cancel(source: Annotated[Source, Only("suite", "store")]) -> None:
    """Cancel a suite's jobs. Finished results stay; submitting the suite again continues from there."""
    from lthbench.runner.slurm import scheduler
    from lthbench.runner.slurm.records import queued_jobs

    suite = find_suite(source.suite)
    jobs = [job.job for _, _, job in queued_jobs(api.open_store(source), suite, scheduler.queued())]
    scheduler.cancel(jobs)
    out.print(f"{len(jobs)} jobs cancelled; `{again('submit', suite)}` goes on from what is finished")


def slurm_options(suite: Suite, given: Profile) -> SlurmOptions:
    """A suite's options, the profile's over them, and those of the command line over both."""
    options = suite.slurm.overlaid(load_profile(given.profile))
    flags = {
        name: value for name, value in vars(given).items() if name in SlurmOptions.model_fields and value is not None
    }
    options = options.overlaid(_valid(flags, lambda fault: f"--{fault['loc'][0]} {fault['input']}".replace("_", "-")))
    extra = {}
    for entry in given.sbatch:
        name, equals, value = entry.partition("=")
        extra[name.lstrip("-")] = value if equals else True
    further = _valid({"extra": extra}, lambda fault: "--sbatch").extra
    return options.model_copy(update={"extra": options.extra | further})


def _valid(given: dict[str, Any], option: Callable[[Any], str]) -> SlurmOptions:
    """Validate given options, or exit; `option` names the one that an error of pydantic belongs to."""
    try:
        return SlurmOptions.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        fail(f"{option(fault)}: {fault['msg'].removeprefix('Value error, ')}")
