"""What jobs ask of Slurm: a suite's `slurm:` section, and profiles of the user's own."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from lthbench.home import user_folder
from lthbench.suite.validation_errors import nearest, read_as
from lthbench.suite.yaml_tree import SuiteError, read_yaml

_CLOCK = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")
_UNITS = {"min": 1, "h": 60, "d": 24 * 60}


def minutes(text: Any) -> int:
    """A time limit in minutes, from Slurm's forms (90, 12:00:00, 1-12, ...) or 90min, 12h, 2d.

    Raises:
        ValueError: it has another form, or is a number without a unit.
    """
    if not isinstance(text, str):
        raise ValueError("write a time with its unit, as 12h, 90min or 12:00:00")
    if (match := re.fullmatch(r"(\d+)\s*(min|h|d)", text)) is not None:
        count = int(match[1]) * _UNITS[match[2]]
    elif (match := _CLOCK.fullmatch(text)) is not None:
        days, first, second, third = (None if part is None else int(part) for part in match.groups())
        if days is not None:  # days-hours[:minutes[:seconds]]
            count = days * 24 * 60 + (first or 0) * 60 + (second or 0) + math.ceil((third or 0) / 60)
        elif third is not None:  # hours:minutes:seconds
            count = (first or 0) * 60 + (second or 0) + math.ceil(third / 60)
        else:  # minutes[:seconds]
            count = (first or 0) + math.ceil((second or 0) / 60)
    else:
        raise ValueError("is not a time; write 12h, 90min, 12:00:00 or 1-12:00:00")
    if count < 1:
        raise ValueError("is not a time at all; give a minute at least")
    return count


Minutes = Annotated[int, BeforeValidator(minutes), WithJsonSchema({"type": "string", "examples": ["12h"]})]
Count = Annotated[int, Field(ge=1, le=100_000)]


def _is_memory(text: str) -> str:
    if not re.fullmatch(r"[0-9]+[KMGT]?", text):
        raise ValueError("is no memory; write 16G or 4000M")
    return text


def _is_line(text: str) -> str:
    if not (text and text.isprintable()):
        raise ValueError("does not fit on a line of a script")
    return text


Line = Annotated[str, AfterValidator(_is_line)]

# Options of sbatch that lthbench sets itself: to find its jobs, order them and stop them in time.
KEPT = frozenset(
    {"array", "clusters", "dependency", "error", "job-name", "no-requeue", "open-mode", "output", "parsable", "requeue"}
    | {"signal", "test-only", "wait", "wrap"}
)
# Those that have keys here, some of which the jobs themselves use.
_KEYS = {"ntasks-per-node": "tasks_per_node"} | {
    key.replace("_", "-"): key
    for key in (
        "partition", "time", "gpus_per_task", "cpus_per_task", "mem", "account", "qos", "constraint", "nodelist",
        "exclude", "nodes",
    )
}  # fmt: skip


def _by_name(given: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    """Further options of sbatch by the names that it has for them."""
    options = {written.replace("_", "-"): value for written, value in given.items()}
    for name in options:
        if not re.fullmatch(r"[a-z][a-z0-9-]+", name):
            raise ValueError(f"{name!r} is not an option of sbatch; write its long name, as licenses or exclusive")
        if name in _KEYS:
            raise ValueError(f"{name} has a key of its own; write {_KEYS[name]}")
        if name in KEPT:
            cure = "; set SLURM_CLUSTERS in the environment, which squeue reads too" if name == "clusters" else ""
            raise ValueError(f"{name} is set by lthbench itself{cure}")
    return options


class SlurmOptions(BaseModel):
    """What a job asks of Slurm, and how a suite's jobs are handled.

    Attributes:
        partition, account, qos, constraint, nodelist, exclude, mem: as for sbatch.
        gpus_per_task, cpus_per_task: of each process, as for sbatch.
        time: the time limit of a job; unfinished work continues in the requeued job.
        nodes, tasks_per_node: where their product is more than 1, that many processes train one network.
        max_running: how many jobs of one array run at once.
        max_requeues: how often a job that met its time limit is requeued before it gives up.
        signal_before: seconds before the time limit at which a training writes its checkpoint and stops.
        setup: shell lines before the job's command, as `module load cuda`.
        extra: further options of sbatch, by name; true for one that has no value, false leaves it out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: Line | None = None
    time: Minutes = 240
    gpus_per_task: Annotated[int, Field(ge=0)] | None = None
    cpus_per_task: Count = 1
    mem: Annotated[str, AfterValidator(_is_memory)] | None = None
    account: Line | None = None
    qos: Line | None = None
    constraint: Line | None = None
    nodelist: Line | None = None
    exclude: Line | None = None
    nodes: Count = 1
    tasks_per_node: Count = 1
    max_running: Count = 50
    max_requeues: Annotated[int, Field(ge=0)] = 10
    signal_before: Annotated[int, Field(ge=1)] = 90
    setup: tuple[str, ...] = ()
    extra: Annotated[dict[str, Line | int | bool], AfterValidator(_by_name)] = {}

    def overlaid(self, over: SlurmOptions) -> SlurmOptions:
        """These options, overridden by those set in `over`."""
        return self.model_copy(update={name: getattr(over, name) for name in over.model_fields_set})


def profiles_file() -> Path | None:
    """Where the user's profiles are; None without a home directory."""
    folder = user_folder("XDG_CONFIG_HOME", ".config")
    return folder and folder / "lthbench" / "slurm.yaml"


def load_profile(name: str | None) -> SlurmOptions:
    """A profile of the user's by name; None is the one called `default`, where there is one.

    Raises:
        SuiteError: with file, line and key.
    """
    path = profiles_file()
    if path is None or not path.exists():
        if name is None:
            return SlurmOptions()
        if path is None:
            raise SuiteError(f"--profile {name}: there is no home directory; set XDG_CONFIG_HOME to a folder")
        raise SuiteError(f"--profile {name}: {path} is not there; write it, as `{name}: {{partition: gpu, time: 12h}}`")
    tree = read_yaml(path)
    if not isinstance(tree.value, dict):
        raise SuiteError(f"{tree.place}: expected a mapping of profiles, as `default: {{partition: gpu, time: 12h}}`")
    node = tree.get(name or "default")
    if node is None:
        if name is None:
            return SlurmOptions()
        raise SuiteError(f"--profile {name}: {path}: no profile is called so{nearest(name, tree.value)}")
    return read_as(SlurmOptions, node, (name or "default",))
