"""How the tasks of a run are executed: by workers of this machine or by jobs of Slurm; and what is required before."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lthbench.options import Option, OptionError
from lthbench.runner.device import CPU, num_groups
from lthbench.runner.queue import Outcome
from lthbench.runner.settings import MAX_PROCESSES, RunOptions
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
        tell: called if the tasks run here, without kernels; workers say so themselves, as this process needs no torch.

    Raises:
        OptionError, DeviceError: this machine cannot do what the options ask.
    """
    from lthbench.runner.local import run_plan

    settings = options.settings(store.root.absolute(), where.processes)
    if where.workers == 0:
        require_these_kernels(settings.device)
        if (lack := without_kernels(settings.device)) is not None:
            tell(lack)
    if where.workers is not None:
        workers = where.workers
    elif settings.device == CPU:
        workers = max(1, len(os.sched_getaffinity(0)) // where.processes)
    else:
        workers = where.per_device * num_groups(settings.device, where.processes)
    return lambda plan, missing, watcher: run_plan(
        plan, settings, workers, watcher, missing=missing, retry_failed=retry_failed
    )


def on_slurm(submission: Submission) -> Execute:
    """Make the function that sends the missing tasks of a plan to Slurm, and waits for them."""
    from lthbench.runner.slurm.submission import run_on_slurm

    return lambda plan, missing, watcher: run_on_slurm(plan, submission, watcher, missing=missing)


def require_these_kernels(device: str) -> None:
    """Refuse to compute results with kernels built from other sources than those beside the package.

    Raises:
        OptionError: the kernels were built from others; the message says how to rebuild them.
    """
    from lthbench.ops._library import why_not_these_kernels

    if (reason := why_not_these_kernels(device)) is not None:
        raise OptionError(reason)


def without_kernels(device: str) -> str | None:
    """What to tell of a device where the reference computes; None where kernels do."""
    from lthbench.ops._library import why_no_kernels

    reason = why_no_kernels(device)
    return None if reason is None else f"no kernels ({reason}): the plain PyTorch reference computes, slower"


def require_data(planned: Plan, data: Path | None) -> None:
    """Read the data sets of a plan, so that a missing one is reported before anything is trained or queued.

    Raises:
        DataError: one is not there, or not whole.
    """
    from lthbench.data.reading import require

    # Those of the tasks, not of the suite's pairs: a part needs fewer, a transfer more.
    for spec in {task.spec.data for task in planned.tasks.values() if not isinstance(task.spec, MaskSpec)}:
        require(spec, data)
