"""Golden results: the recorded results of a suite, and the outcome of comparing a run with them.

SUITES/golden/SUITE/*.json, one file per environment, one line per task. A file has all tasks of the suite, or of some
of its pairs. It is compared bit for bit with runs in its own environment; all of a suite's files together show how much
sound environments differ, and runs in any other environment are compared with them by a test
(`lthbench.analysis.golden.equivalence`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lthbench.documents import DocumentError, read_document
from lthbench.suite.shipped import by_engine
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.atomic import write_atomically

# The entries of the environment that decide bits. numpy draws the random numbers; the processor's model and caches
# choose the kernels and block sizes of oneDNN and MKL, and so the order of sums.
DECISIVE = (
    "torch", "torchvision", "numpy", "device", "processor", "cpu_capability", "dispatch", "threads", "kernels",
    "compile", "processes",
)  # fmt: skip
_COMMON = {"dispatch": "", "compile": False, "processes": 1}

Environment = Mapping[str, Any]
State = Literal["agreed", "differs", "no golden", "not run"]


class GoldenError(SuiteError):
    """Golden results that cannot be read, or may not be written; the message names the file and the cure."""


@dataclass(frozen=True)
class Difference:
    """One quantity of one task that differs from the recorded one.

    Attributes:
        task: the task in words: pair, arm, replicate, what it is.
        what: `weights`, `mask` or `start` (their digests), `status`, a metric, or `task` for one that is recorded
            and no longer planned, or planned and not recorded.
        recorded, found: the two values; None where there is none.
        tolerance: how far `found` may lie from `recorded` by the test's measure; None if every bit counts.
        p: the test's p, after Holm.
    """

    key: str
    task: str
    what: str
    recorded: float | str | None
    found: float | str | None
    tolerance: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Comparison:
    """The outcome of comparing a suite's results with golden ones, bit for bit or by a test.

    Attributes:
        state: `agreed`, `differs`, `no golden` (for this environment, or at all), or `not run`.
        reason: the state in a sentence.
        files: the golden files that were compared with.
        num_tasks, num_run, num_compared: the suite's tasks, those that are done, and those of them that are recorded.
        differences: in the plan's order; the first one is where to look.
        environment: the entries of the environment that differ from the nearest golden file: (recorded, here).
        level: of a test, the rate at which sound runs fail it (family-wise).
        num_tests: of a test, how many quantities were tested.
        accept: the command that records these results as golden.
    """

    kind: Literal["bitwise", "statistical"]
    state: State
    reason: str
    files: tuple[Path, ...] = ()
    num_tasks: int = 0
    num_run: int = 0
    num_compared: int = 0
    differences: tuple[Difference, ...] = ()
    environment: tuple[tuple[str, Any, Any], ...] = ()
    level: float | None = None
    num_tests: int = 0
    accept: str = ""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Recorded(_Strict):
    """A task's result as recorded.

    Attributes:
        task: the task in words.
        chosen: an experiment chose the task by results, as a bisection does; another environment may choose another.
        digests: the first 16 hex digits of SHA-256.
        metrics: exact.
    """

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    task: str
    status: str
    chosen: bool = False
    digests: dict[str, str] = {}
    metrics: dict[str, float] = {}

    @property
    def pair(self) -> str:
        return self.task.split()[0]


class Entry(_Strict):
    """When, with which version and why a file was written."""

    date: str
    lthbench: str
    reason: Annotated[str, Field(min_length=1)]


class Golden(_Strict):
    """The results of a suite, or of some of its pairs, in one environment, in the plan's order, with the history of
    their recording.

    Attributes:
        plugins: those that tasks used, by name: version and digest.
        policy: where the blocked engine trained, the digest of the file that chose its kernels.
    """

    suite: str
    environment: dict[str, str | int | bool]
    plugins: dict[str, dict[str, str]] = {}
    policy: str = ""
    history: list[Entry]
    tasks: list[Recorded]

    def by_key(self) -> dict[str, Recorded]:
        return {task.key: task for task in self.tasks}

    def pairs(self) -> set[str]:
        """The pairs whose tasks it has."""
        return {task.pair for task in self.tasks}

    def of(self, pairs: Collection[str]) -> Golden:
        """The results of some pairs."""
        return self.model_copy(update={"tasks": [task for task in self.tasks if task.pair in pairs]})


def golden_folder(suite: Path, other_engine: str | None = None) -> Path:
    """Where the golden files of a suite lie: SUITES/golden/NAME for SUITES/NAME.yaml, NAME-ENGINE by another engine
    than its recipes name.
    """
    return suite.parent / "golden" / by_engine(suite, other_engine)


def golden_file(folder: Path, environment: Environment) -> Path:
    """The file of an environment: a readable name, made unique by the hash of what decides bits."""
    unique = hashlib.sha256(json.dumps(decisive(environment), sort_keys=True).encode()).hexdigest()[:8]
    words = f"{environment.get('processor') or environment.get('device')} torch {environment.get('torch')}"
    return folder / f"{re.sub(r'[^a-z0-9.]+', '-', words.lower()).strip('-')}-{unique}.json"


def read_golden(folder: Path) -> dict[Path, Golden]:
    """The golden files of a folder, by path; none where the folder is not there.

    Raises:
        GoldenError: a file is not a golden file.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path] = read_document(path, Golden)
        except DocumentError as error:
            raise GoldenError(f"{error}; restore the file from version control") from error
        except OSError as error:
            raise GoldenError(f"{path}: {error.strerror}; restore the file from version control") from error
    return found


def write_golden(path: Path, golden: Golden) -> None:
    """Write a golden file with a line for each task, so that differences between versions read well."""
    content = golden.model_dump(mode="json", exclude_defaults=True)
    lines = ["{", f'"suite": {json.dumps(content["suite"])},', f'"environment": {json.dumps(content["environment"])},']
    if "plugins" in content:
        lines.append(f'"plugins": {json.dumps(content["plugins"])},')
    if "policy" in content:
        lines.append(f'"policy": {json.dumps(content["policy"])},')
    for name, last in (("history", ","), ("tasks", "")):
        lines += [f'"{name}": [', ",\n".join(map(json.dumps, content[name])), f"]{last}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join([*lines, "}", ""]).encode())


def decisive(environment: Environment) -> dict[str, Any]:
    """The entries of an environment that decide bits; missing ones have their usual value."""
    return {name: environment.get(name, _COMMON.get(name)) for name in DECISIVE}


def decisive_differences(recorded: Environment, here: Environment) -> tuple[tuple[str, Any, Any], ...]:
    """The entries that decide bits and differ between two environments: (name, recorded, here)."""
    before, now = decisive(recorded), decisive(here)
    return tuple((name, before[name], now[name]) for name in DECISIVE if before[name] != now[name])
