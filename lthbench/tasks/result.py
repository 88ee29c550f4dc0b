"""`Result`: what a task's result.json holds, sealed by a digest, with the digests of the task's artefacts.

An artefact is a file of weights or a mask in the task's folder. No torch is needed here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lthbench.documents import DocumentError, parse_document, read_bounded
from lthbench.tasks.paths import RESULT, SPEC
from lthbench.tasks.spec import Key, Sha256

# A tracked training of a million steps has a curve of some MiB.
LARGEST_RESULT = 64 << 20
_CHUNK = 1 << 20

ArtefactName = Annotated[str, Field(pattern=r"^(weights(-\d+)?|mask)\.safetensors$")]


def _is_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


class Artefact(BaseModel):
    """A file of a task's folder as it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256

    @classmethod
    def of(cls, content: bytes) -> Artefact:
        """The size and digest of a file's bytes."""
        return cls(size=len(content), sha256=hashlib.sha256(content).hexdigest())


class InputBits(BaseModel):
    """What a task read of another: its status, and the digests of the files."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ok", "diverged", "refused"]
    read: dict[ArtefactName, Sha256] = {}


class Result(BaseModel):
    """A stored result.

    Attributes:
        key: of the task.
        status, reason: `ok`, or why there are no numbers.
        metrics: accuracies, densities, shares and overlaps are fractions.
        artefacts: name -> size and digest of every file that the task wrote.
        inputs: key -> what was found of each task that was read.
        seconds: of computing; finished: time with time zone, ISO 8601.
        environment: versions, device and threads.
        digest: SHA-256 of everything else in the canonical form of `seal`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: Key
    status: Literal["ok", "diverged", "refused"]
    reason: str | None = None
    metrics: dict[str, float]
    artefacts: dict[ArtefactName, Artefact]
    inputs: dict[Key, InputBits]
    seconds: Annotated[float, Field(ge=0)]
    finished: Annotated[str, AfterValidator(_is_time)]
    environment: dict[str, str | int | bool]
    digest: Sha256
    # Of trainings.
    epoch_losses: list[float] = []
    epoch_distances: list[float] = []
    layer_density: dict[str, float] = {}
    layer_distance: dict[str, float] = {}
    layer_overlap: dict[str, float] = {}
    kept: list[int] = []
    steps: tuple[int, int] | None = None
    validation_curve: list[tuple[int, float]] = []
    digests: dict[str, Sha256] = {}
    # Of masks.
    thresholds: list[float] = []
    num_nan: int = 0
    # Of interpolations.
    alphas: list[float] = []
    curves: dict[str, list[float]] = {}

    @model_validator(mode="after")
    def _fractions_are_fractions(self) -> Result:
        for name, value in self.metrics.items():
            is_fraction = name.endswith(("_accuracy", "_share")) or name in ("density", "overlap")
            if is_fraction and not -1e-9 <= value <= 1 + 1e-9:
                raise ValueError(f"metrics.{name} is {value:g}, which is not a fraction")
        return self


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of a result without its digest, as JSON with sorted keys and no spaces; numbers as Python writes them."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """A result with its digest, as it is stored.

    Raises:
        DocumentError: it does not have the form of a result.
    """
    plain = json.loads(json.dumps(content))
    sealed = plain | {"digest": digest_of(plain)}
    parse_document(json.dumps(sealed).encode(), Result, Path(RESULT))
    return sealed


def read_result(folder: Path, key: str, name: str = RESULT) -> dict[str, Any]:
    """The result in a task's folder.

    Args:
        name: of the file.

    Raises:
        DocumentError: the file is not what was written, or another task's.
        OSError: it is not there, or cannot be read.
    """
    path = folder / name
    raw = read_bounded(path, LARGEST_RESULT)
    found = parse_document(raw, Result, path)
    if found.key != key:
        raise DocumentError(f"{path}: is the result of task {found.key}")
    content: dict[str, Any] = json.loads(raw)
    if digest_of(content) != found.digest:
        raise DocumentError(f"{path}: is not what was written: its digest is another")
    return content


def read_spec(folder: Path, key: str) -> str:
    """The canonical specification in a task's folder, whose hash is the task's key.

    Raises:
        DocumentError: the file is not what was written.
        OSError: it is not there, or cannot be read.
    """
    raw = read_bounded(folder / SPEC, LARGEST_RESULT)
    if hashlib.sha256(raw).hexdigest()[:32] != key:
        raise DocumentError(f"{folder / SPEC}: is not what was written: its hash is not the task's key")
    return raw.decode()


def fault_of(path: Path, artefact: Artefact) -> str | None:
    """What is wrong with an artefact, read in full a MiB at a time; None if it is as written."""
    sha, size = hashlib.sha256(), 0
    try:
        if not path.is_file():
            return "is not there"
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                sha.update(chunk)
                size += len(chunk)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if size != artefact.size:
        return f"has {size:,} bytes, written were {artefact.size:,}"
    return None if sha.hexdigest() == artefact.sha256 else "is not what was written: its digest is another"


def read_artefact(path: Path, artefact: Artefact) -> bytes:
    """An artefact's bytes, as they were written.

    Raises:
        DocumentError: it is not there, cannot be read, or is not what was written.
    """
    try:
        content = read_bounded(path, artefact.size)
    except OSError as error:
        raise DocumentError(f"{path}: {'is not there' if not path.exists() else error.strerror}") from error
    if Artefact.of(content) != artefact:
        raise DocumentError(f"{path}: is not what was written: its digest is another")
    return content
