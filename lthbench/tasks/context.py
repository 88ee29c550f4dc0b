"""What a task gets from its runner: where its inputs are, its own folder, the device, and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from lthbench.documents import DocumentError
from lthbench.tasks.layout import Layout
from lthbench.tasks.paths import CHECKPOINT, MASK, weights_file
from lthbench.tasks.result import Artefact, InputBits, read_result, read_spec
from lthbench.tasks.spec import Weights
from lthbench.tasks.tensor_files import read_mask, read_tensors, write_checkpoint, write_mask, write_tensors
from lthbench.training.distributed import Ranks

_CPU = torch.device("cpu")
Batch = TypeVar("Batch")


class Interrupted(BaseException):
    """The task was told to stop and has written its checkpoint; not a failure, so handlers of failures do not catch
    it."""


class Refused(Exception):
    """The task can never have a result, for example because the network it would prune diverged; the message says
    why."""


class UnusableInputError(Exception):
    """A task that this one needs has to be computed again: its result or a file of it is gone or damaged.

    Attributes:
        key: of that task.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


@dataclass(frozen=True)
class Context:
    """Where and how one task runs.

    Attributes:
        folder: the task's own folder, which exists.
        folder_of: key of an input task -> its folder.
        keep: the steps of a training whose weights other tasks need.
        data: root folder of the data sets; with None only the embedded one is available.
        report: called with (done, total) after every step of whatever the task counts.
        sign: called on progress that a task does not count, such as a batch of an evaluation. A task that calls neither
            for long is taken to hang.
        checkpoint_every: seconds between checkpoints within a training.
        compile: whether trainings run on compiled models.
        graphs: whether trainings on a GPU may launch recorded passes, which have the same bits.
        tell: called with notes for the user beside the result.
        scratch: where files are written before they are renamed into the folder (`write_atomically`); None is the
            folder itself.
        tickets: folder of the imported tickets.
        inputs: what was read of other tasks so far, by key.
        asked: called after every step; returns "save" for a checkpoint now, "stop" for one and then `Interrupted`.
        ranks: this process among those that make a training together.
        environment: versions, device and threads, as in the result.
    """

    folder: Path
    folder_of: Callable[[str], Path]
    keep: frozenset[int] = frozenset()
    device: torch.device = _CPU
    data: Path | None = None
    report: Callable[[int, int], None] = lambda done, total: None
    sign: Callable[[], None] = lambda: None
    checkpoint_every: float = 60.0
    compile: bool = False
    graphs: bool = True
    tell: Callable[[str], None] = lambda text: None
    asked: Callable[[], Literal["save", "stop"] | None] = lambda: None
    ranks: Ranks = Ranks()  # noqa: RUF009 (immutable)
    scratch: Path | None = None
    tickets: Path | None = None
    inputs: dict[str, InputBits] = field(default_factory=dict)
    environment: Mapping[str, str | int | bool] = field(default_factory=dict)

    def watched(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on, calling `sign` after each."""
        for batch in batches:
            yield batch
            self.sign()

    def write(self, name: str, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> dict[str, Artefact]:
        """Write tensors as a file of the task; returns its name and what was written, for the result."""
        return {name: write_tensors(self.folder / name, tensors, note, self.scratch)}

    def write_mask(self, mask: Mapping[str, Tensor]) -> dict[str, Artefact]:
        """Write the task's mask; returns as `write`."""
        return {MASK: write_mask(self.folder / MASK, mask, self.scratch)}

    def write_checkpoint(self, tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> None:
        """Write the task's checkpoint over the previous one."""
        write_checkpoint(self.folder / CHECKPOINT, tensors, note, self.scratch)

    def network(self, ref: Weights) -> tuple[dict[str, Tensor], Layout]:
        """The weights and normalisation statistics of another task, on this task's device, and their layout.

        Raises:
            Refused: that training diverged or was refused.
            UnusableInputError: they are not there, or not what was written.
        """
        name = weights_file(ref.step)
        artefact = self._artefact(ref.task, name, f"training {ref.task}")
        try:
            weights, note = read_tensors(self.folder_of(ref.task) / name, self.device, artefact)
        except DocumentError as error:
            raise UnusableInputError(ref.task, str(error)) from error
        return weights, Layout(**note)

    def mask(self, key: str) -> dict[str, Tensor]:
        """The mask of another task, on this task's device; raises as `network`."""
        artefact = self._artefact(key, MASK, f"mask {key}")
        try:
            return read_mask(self.folder_of(key) / MASK, self.device, artefact)
        except DocumentError as error:
            raise UnusableInputError(key, str(error)) from error

    def specification(self, key: str) -> str:
        """The canonical specification of another task.

        Raises:
            UnusableInputError: it is not there, or not what was written.
        """
        try:
            return read_spec(self.folder_of(key), key)
        except (DocumentError, FileNotFoundError) as error:
            raise UnusableInputError(key, str(error)) from error

    def _artefact(self, key: str, name: str, what: str) -> Artefact:
        """The artefact that another task wrote under a name; recorded as read."""
        try:
            result = read_result(self.folder_of(key), key)
        except (DocumentError, FileNotFoundError) as error:
            raise UnusableInputError(key, str(error)) from error
        bits = self.inputs.setdefault(key, InputBits(status=result["status"]))
        if result["status"] != "ok":
            raise Refused(f"{what} {result['status']}: {result['reason']}")
        if name not in result["artefacts"]:
            raise UnusableInputError(key, f"{self.folder_of(key) / name}: was not written")
        artefact = Artefact(**result["artefacts"][name])
        bits.read[name] = artefact.sha256
        return artefact
