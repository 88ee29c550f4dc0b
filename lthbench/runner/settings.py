"""How tasks are run: where, on what, with how many threads (no torch needed)."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from lthbench.options import Option, OptionError
from lthbench.runner.device import CPU, Device, resolve_device

STALL_TIMEOUT = 1800.0
MAX_PROCESSES = 1024  # of threads, too: more is a slip, and would take a machine down


def num_ranks() -> int:
    """How many processes torchrun, or a Slurm job likewise, started to work together; 1 if none did."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """Where data sets are.

    Attributes:
        data: root of the data sets, or None for the embedded one alone.
    """

    data: Annotated[Path | None, Option("Folder of the data sets.", "--data", envvar="LTHBENCH_DATA")] = None


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Where results are."""

    store: Annotated[Path, Option("Folder of the results.", "--store", envvar="LTHBENCH_STORE")] = Path("store")


@dataclass(frozen=True, kw_only=True)
class RunOptions(DataFolder):
    """What users ask of every run, here or in jobs of a cluster.

    Attributes:
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where there is one, of the machine where tasks are run.
        threads: CPU threads of one worker; part of the environment that decides bits.
        checkpoint_every: seconds between checkpoints within a training.
        stall_timeout: seconds without progress after which a worker is ended and its task tried once more; 0 disables
            this.
        compile: train on compiled models; part of the environment that decides bits.
        graphs: on a GPU, let trainings replay recorded passes (CUDA graphs); changes no bit.
        plugins: references of those that processes load, as `load_plugins` gives them.
    """

    device: Annotated[str, Option("auto, cpu, cuda (all GPUs) or cuda:N.", "--device")] = "auto"
    threads: Annotated[
        int,
        Option(
            "CPU threads per process; results differ bitwise with their number.", "--threads", min=1, max=MAX_PROCESSES
        ),
    ] = 1
    checkpoint_every: Annotated[
        float, Option("Seconds between checkpoints within a training; changes no result.", "--checkpoint-every", min=0)
    ] = 60.0
    stall_timeout: Annotated[
        float,
        Option(
            "Seconds without progress after which a worker is ended and its task retried once; 0 only warns.",
            "--stall-timeout",
            min=0,
        ),
    ] = STALL_TIMEOUT
    compile: Annotated[
        bool, Option("Train with torch.compile: faster after a minute; results differ bitwise.", "--compile")
    ] = False
    graphs: Annotated[
        bool,
        Option("On a GPU, replay training steps as CUDA graphs: faster, with the same bits.", "--graphs/--no-graphs"),
    ] = True
    plugins: tuple[str, ...] = ()

    def absolute(self) -> RunOptions:
        """These options for a process that begins in another folder."""
        return replace(self, data=self.data and self.data.absolute())

    def settings(self, store: Path, processes: int = 1) -> Settings:
        """The settings of a worker on this machine: the one place where `device` is resolved.

        Raises:
            DeviceError: this machine does not have the device, or not as many GPUs from there on as processes.
            OptionError: several processes are asked for twice, or together with `compile`.
        """
        if processes > 1 and num_ranks() > 1:
            raise OptionError(
                f"--processes-per-task {processes}: {num_ranks()} processes were started for each task; leave it out"
            )
        if max(processes, num_ranks()) > 1 and self.compile:
            raise OptionError("--compile: a training over several processes cannot be compiled; leave it out")
        device = resolve_device(self.device, processes)
        return Settings(store, **vars(self) | {"device": device}, processes=processes)


@dataclass(frozen=True)
class Settings(RunOptions):
    """How a worker runs tasks, on a device that is there.

    Attributes:
        store: root of the store.
        device: the resolved one.
        processes: how many processes make one training together, on a GPU each where device is cuda (the first on
            cuda:N, the others on those after it); part of the environment that decides bits.
    """

    store: Path
    device: Device = field(default=CPU, kw_only=True)
    processes: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ValueError(
                f"{self.device!r} is not a device of a machine; `resolve_device` finds the one that is meant"
            )

    def dumps(self) -> str:
        """These settings as JSON, for another process."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def loads(cls, text: str) -> Settings:
        """Read back what `dumps` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["store"] = Path(values["store"])
        values["data"] = Path(values["data"]) if values["data"] else None
        values["plugins"] = tuple(values["plugins"])
        return cls(**values)
