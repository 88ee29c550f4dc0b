"""The note in a training's checkpoint, and whether a training that continues from it can still give all that is
asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lthbench.documents import DocumentError, on_one_line
from lthbench.tasks.paths import CHECKPOINT, weights_file
from lthbench.tasks.result import Artefact, ArtefactName, fault_of
from lthbench.tasks.spec import TrainSpec
from lthbench.tasks.tensor_files import read_checkpoint
from lthbench.training.loop import Progress

# Parts of an environment that may differ: our version (the specification has its own) and Python's.
_NO_MATTER = {"lthbench", "python"}


class UnfitError(Exception):
    """A sound checkpoint from which a training cannot give all that is required; the message is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(on_one_line(message))


class CheckpointNote(BaseModel):
    """The note of a checkpoint.

    Attributes:
        task: key of the training.
        progress: of the training.
        kept: the files of the kept steps before that.
        environment: versions, device and threads, as the result will have them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    progress: Progress
    kept: dict[ArtefactName, Artefact]
    environment: dict[str, str | int | bool]

    @classmethod
    def of(cls, content: dict[str, Any]) -> CheckpointNote:
        """Parse a note; ValueError if it has another form."""
        return cls.model_validate_json(json.dumps(content), strict=True)


def check_checkpoint(
    folder: Path, spec: TrainSpec, keep: Iterable[int], environment: Mapping[str, str | int | bool]
) -> None:
    """Check that a training can continue from the checkpoint in its folder.

    Args:
        keep: the steps whose weights are to be there at the end.
        environment: in which it would continue. A result names one environment, whose bits it has.

    Raises:
        DocumentError: the checkpoint is not what was written, or not of this training.
        UnfitError: it is past a step to be kept whose weights are missing; or another environment wrote it.
    """
    path = folder / CHECKPOINT
    _, content = read_checkpoint(path)
    try:
        note = CheckpointNote.of(content)
    except ValidationError as error:
        raise DocumentError(f"{path}: {error.errors()[0]['msg']}") from error
    if note.task != folder.name or note.progress.step < spec.begin:
        raise DocumentError(f"{path}: is of another training")
    there, here = note.environment, dict(environment)
    if differ := sorted(name for name in {*there, *here} - _NO_MATTER if there.get(name) != here.get(name)):
        told = ", ".join(f"{name} ({there.get(name)!r}, here {here.get(name)!r})" for name in differ)
        raise UnfitError(f"{path}: is of another environment, so that results would differ bitwise: {told}")
    passed = {weights_file(step) for step in keep if step < note.progress.step}
    if missing := sorted(passed - note.kept.keys()):
        raise UnfitError(f"{path}: is past what is to be kept by now: {', '.join(missing)}")
    for name, artefact in note.kept.items():
        if fault := fault_of(folder / name, artefact):
            raise UnfitError(f"{folder / name}: {fault}")
