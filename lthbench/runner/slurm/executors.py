"""Submitit's executors of job arrays: for Slurm, and for trying jobs out on this machine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import submitit

from lthbench.runner.slurm.arrays import ArrayExecutor
from lthbench.runner.slurm.records import Cluster
from lthbench.runner.slurm.scheduler import SchedulerError
from lthbench.suite.slurm_options import SlurmOptions


def make_executor(
    cluster: Cluster, folder: Path, name: str, options: SlurmOptions, after: Collection[str]
) -> submitit.Executor:
    """The executor that takes an array called `name`, which starts when the jobs `after` have ended.

    Raises:
        SchedulerError: there is no Slurm.
    """
    if cluster != "slurm":
        executor = submitit.AutoExecutor(folder, cluster=cluster, local_max_num_timeout=options.max_requeues)
        executor.update_parameters(timeout_min=options.time, nodes=options.nodes, tasks_per_node=options.tasks_per_node)
        return executor
    try:
        array = ArrayExecutor(folder, options.max_requeues)
    except RuntimeError as error:
        raise SchedulerError(f"{error}; `lthbench run` runs a suite on this machine") from error
    array.update_parameters(**sbatch_parameters(name, options, after))
    return array


def sbatch_parameters(name: str, options: SlurmOptions, after: Collection[str]) -> dict[str, Any]:
    """The parameters of an array for Slurm, by sbatch's names."""
    parameters: dict[str, Any] = {
        "job_name": name,
        "ntasks_per_node": options.tasks_per_node,
        "array_parallelism": options.max_running,
        "signal_delay_s": options.signal_before,
        "setup": list(options.setup) or None,
        "additional_parameters": {"requeue": True}
        | {option: value for option, value in options.extra.items() if value is not False},
        "dependency": "afterany:" + ":".join(sorted(after)) if after else None,
        # Since Slurm 22.05 srun no longer inherits this from the job.
        "srun_args": [f"--cpus-per-task={options.cpus_per_task}"],
    }
    same = (
        "partition", "time", "nodes", "cpus_per_task", "gpus_per_task", "mem", "account", "qos", "constraint",
        "nodelist", "exclude",
    )  # fmt: skip
    parameters |= {option: getattr(options, option) for option in same}
    return {parameter: value for parameter, value in parameters.items() if value is not None}
