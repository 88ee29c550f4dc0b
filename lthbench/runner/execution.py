"""How the tasks of a run are executed: by workers of this machine or by jobs of Slurm; and what is required before."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lthbench.options import Option, OptionError
from lthbench.runner.queue import Outcome
from lthbench.runner.settings import CPU, MAX_PROCESSES, Device, RunOptions, Settings, num_ranks
from lthbench.runner.watcher import Watcher
from lthbench.suite.plan import Plan
from lthbench.tasks.spec import MaskSpec
from lthbench.tasks.store import Store

if TYPE_CHECKING:
    from lthbench.runner.slurm.submission import Submission

Tell = Callable[[str], None]
Execute = Callable[[Plan, list[str], Watcher], Outcome]


@dataclass(frozen=True, kw_only=True)
class Local:
    """Run tasks on this machine.

    Attributes:
        workers: processes; 0 runs tasks in this one, None is one per core, or `per_device` per GPU.
        processes: how many make one training together.
    """

    workers: Annotated[
        int | None,
        Option(
            "Worker processes; 0 runs in this one. Default: one per core, or --per-device per GPU.",
            "--workers",
            min=0,
            max=MAX_PROCESSES,
        ),
    ] = None
    per_device: Annotated[
        int,
        Option("Worker processes per GPU; more than 1 helps small networks.", "--per-device", min=1, max=MAX_PROCESSES),
    ] = 1
    processes: Annotated[
        int,
        Option(
            "Processes per training, one GPU each; results differ bitwise with their number.",
            "--processes-per-task",
            min=1,
            max=MAX_PROCESSES,
        ),
    ] = 1


def on_this_machine(store: Store, options: RunOptions, where: Local, *, retry_failed: bool, tell: Tell) -> Execute:
    """Make the function that runs the missing tasks of a plan in workers of this machine.

    Args:
        tell: called if the tasks run without kernels.

    Raises:
        OptionError, DeviceError: this machine cannot do what the options ask.
    """
    from lthbench.ops._library import why_no_kernels
    from lthbench.runner.local import run_plan

    settings = settings_here(store, options, where.processes)
    require_these_kernels(settings.device)
    if (reason := why_no_kernels(settings.device)) is not None:
        tell(f"no kernels ({reason}): the plain PyTorch reference computes, slower")
    devices = _devices(settings)
    cores = max(1, len(os.sched_getaffinity(0)) // where.processes)
    by_default = cores if settings.device == CPU else where.per_device * len(devices)
    workers = by_default if where.workers is None else where.workers
    return lambda plan, missing, watcher: run_plan(
        plan, settings, workers, watcher, missing=missing, devices=devices, retry_failed=retry_failed
    )


def on_slurm(submission: Submission) -> Execute:
    """Make the function that sends the missing tasks of a plan to Slurm, and waits for them."""
    from lthbench.runner.slurm.submission import run_on_slurm

    return lambda plan, missing, watcher: run_on_slurm(plan, submission, watcher, missing=missing)


def settings_here(store: Store, options: RunOptions, processes: int) -> Settings:
    """The settings of a worker of this machine, with so many processes per task.

    Raises:
        OptionError, DeviceError: this machine cannot do what the options ask.
    """
    if processes > 1 and num_ranks() > 1:
        raise OptionError(
            f"--processes-per-task {processes}: {num_ranks()} processes were started for each task; leave it out"
        )
    if max(processes, num_ranks()) > 1 and options.compile:
        raise OptionError("--compile: a training over several processes cannot be compiled; leave it out")
    return options.settings(store.root.absolute(), processes)


def require_these_kernels(device: str) -> None:
    """Refuse to compute results with kernels built from other sources than those beside the package.

    Raises:
        OptionError: the kernels were built from others; the message says how to rebuild them.
    """
    from lthbench.ops._library import why_not_these_kernels

    if (reason := why_not_these_kernels(device)) is not None:
        raise OptionError(reason)


def require_data(planned: Plan, data: Path | None) -> None:
    """Read the data sets of a plan, so that a missing one is reported before anything is trained or queued.

    Raises:
        DataError: one is not there, or not whole.
    """
    from lthbench.data.loading import load

    # Those of the tasks, not of the suite's pairs: a part needs fewer, a transfer more.
    for spec in {task.spec.data for task in planned.tasks.values() if not isinstance(task.spec, MaskSpec)}:
        load(spec, data)


def _devices(settings: Settings) -> list[Device]:
    """The devices that workers are distributed over: the named one, or as many groups of GPUs as there are."""
    import torch

    if settings.device != "cuda":
        return [settings.device]
    last = torch.cuda.device_count() - settings.processes
    return [Device(f"cuda:{first}") for first in range(0, last + 1, settings.processes)]
