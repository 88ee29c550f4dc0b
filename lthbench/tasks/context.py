"""What a task gets from whoever runs it: where its inputs lie, its own folder, the device, and whom to tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lthbench.tasks.files import read_mask, read_tensors
from lthbench.tasks.layout import MASK, RESULT, weights_file
from lthbench.tasks.network import Layout
from lthbench.tasks.spec import Weights
from lthbench.training.ranks import Ranks

_CPU = torch.device("cpu")


class Interrupted(BaseException):
    """The task was asked to stop and has written its checkpoint; no failure, so nothing that catches those sees it."""


class Refused(Exception):
    """The task can never have a result, as when the network it would prune diverged; the message says why."""


@dataclass(frozen=True)
class Context:
    """Where and how one task runs.

    Attributes:
        folder: the task's own folder, which exists.
        folder_of: key of an input task -> its folder.
        keep: the steps of a training whose weights other tasks need.
        data: root folder of the data sets; None has only the embedded one.
        report: called with (done, total) steps from time to time.
        checkpoint_every: seconds between checkpoints within a training.
        compile: whether trainings run on compiled models.
        asked: called after every step; "save" asks for a checkpoint now, "stop" for one and then `Interrupted`.
        ranks: this process among those that make a training together.
    """

    folder: Path
    folder_of: Callable[[str], Path]
    keep: frozenset[int] = frozenset()
    device: torch.device = _CPU
    data: Path | None = None
    report: Callable[[int, int], None] = lambda done, total: None
    checkpoint_every: float = 60.0
    compile: bool = False
    asked: Callable[[], Literal["save", "stop"] | None] = lambda: None
    ranks: Ranks = Ranks()  # noqa: RUF009 (immutable)

    def network(self, ref: Weights) -> tuple[dict[str, Tensor], Layout]:
        """The weights and normalisation statistics of another task, on this task's device, and their layout.

        Raises:
            Refused: that training diverged or was refused.
        """
        folder = self.folder_of(ref.task)
        self._check(folder, f"training {ref.task}")
        weights, note = read_tensors(folder / weights_file(ref.step), self.device)
        return weights, Layout(**note)

    def mask(self, key: str) -> dict[str, Tensor]:
        """The mask of another task, on this task's device; Refused where that mask was refused."""
        folder = self.folder_of(key)
        self._check(folder, f"mask {key}")
        return read_mask(folder / MASK, self.device)

    def _check(self, folder: Path, what: str) -> None:
        result = json.loads((folder / RESULT).read_text())
        if result["status"] != "ok":
            raise Refused(f"{what} {result['status']}: {result['reason']}")
