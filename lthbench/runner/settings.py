"""How tasks are run: where, on what, with how many threads (no torch needed)."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STALL_TIMEOUT = 1800.0


def num_ranks() -> int:
    """How many processes torchrun, or a Slurm job in its manner, started to work together; 1 where none did."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Settings:
    """How a worker runs tasks.

    Attributes:
        store: root of the store.
        data: root of the data sets, or None for the embedded one alone.
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where there is one.
        threads: CPU threads of one worker; part of the environment that decides bits.
        checkpoint_every: seconds between checkpoints within a training.
        compile: train on compiled models; part of the environment that decides bits.
        processes: how many processes make one training together, on a GPU each where device is cuda (the first on
            cuda:N, the others on those after it); part of the environment that decides bits.
        stall_timeout: seconds without progress after which a worker is ended and its task tried once more; 0 never.
        graphs: on a GPU, let trainings launch recorded passes; changes no bit.
    """

    store: Path
    data: Path | None = None
    device: str = "cpu"
    threads: int = 1
    checkpoint_every: float = 60.0
    compile: bool = False
    processes: int = 1
    stall_timeout: float = STALL_TIMEOUT
    graphs: bool = True

    def dumps(self) -> str:
        """These settings as JSON, for another process."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def loads(cls, text: str) -> Settings:
        """Read back what `dumps` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["store"] = Path(values["store"])
        values["data"] = Path(values["data"]) if values["data"] else None
        return cls(**values)
