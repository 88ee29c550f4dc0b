"""How tasks are run: where, on what, with how many threads (no torch needed)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """How a worker runs tasks.

    Attributes:
        store: root of the store.
        data: root of the data sets, or None for the embedded one alone.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of one worker; part of the environment that decides bits.
        checkpoint_every: seconds between checkpoints within a training.
        compile: train on compiled models; part of the environment that decides bits.
    """

    store: Path
    data: Path | None = None
    device: str = "cpu"
    threads: int = 1
    checkpoint_every: float = 60.0
    compile: bool = False
