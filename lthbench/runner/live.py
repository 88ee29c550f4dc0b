"""What of a suite runs at this moment, from its store alone, so that it is the same for local workers and for Slurm."""

from __future__ import annotations

import time
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from lthbench.data.spec import num_train_images
from lthbench.lease import PATIENCE, holder_of
from lthbench.runner.pace import Pace, pace_of
from lthbench.runner.stall import Stall, stall_of
from lthbench.suite.plan import Plan
from lthbench.tasks.header import read_note
from lthbench.tasks.paths import CHECKPOINT, FAILURE, LEASE, SPEC, STALLED
from lthbench.tasks.spec import TrainSpec
from lthbench.tasks.store import Store


@dataclass
class ArmProgress:
    """The tasks of one pair and arm: all, done, running, failed."""

    pair: str
    arm: str
    tasks: int = 0
    done: int = 0
    running: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Running:
    """A task under way.

    Attributes:
        seconds: since it was started or resumed.
        part: the share of its steps that its last checkpoint has; None before the first one.
        job: of Slurm, or empty.
        is_silent: whether its lease has not been touched for so long that another process may take it.
        stall: what is recorded of its worker, if that makes no progress.
    """

    key: str
    seconds: float
    part: float | None
    job: str
    is_silent: bool
    stall: Stall | None = None


@dataclass
class Snapshot:
    """A suite at one moment.

    Attributes:
        failures: key -> reason, newest last.
        part: the share of the work that is done, with that of checkpoints.
        seconds_left: as `Pace` estimates it; None before a task is done.
    """

    arms: list[ArmProgress]
    running: list[Running] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    part: float = 0.0
    seconds_left: float | None = None

    @property
    def is_done(self) -> bool:
        return all(arm.done == arm.tasks for arm in self.arms)


class Live:
    """Polls a plan's store; tasks found done are not read again."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.pace = Pace()
        self._finished: set[str] = set()
        self._watched: dict[str, tuple[int, float]] = {}  # key -> when its lease was touched, and since when it is so

    def look(self) -> Snapshot:
        """The snapshot at this moment."""
        now = time.time()
        wanted = {key: self.plan.kept(key) for key in self.plan.tasks if key not in self._finished}
        files = self.store.files(wanted)
        done = self.store.done(wanted, files)
        pace_of(self.plan, done, self.pace)
        self._finished |= done.keys()
        arms: dict[tuple[str, str], ArmProgress] = {}
        found = Snapshot([])
        failed: list[tuple[float, str]] = []
        for key in self.plan.tasks:
            cell = self.plan.cells[key]
            arm = arms.setdefault((cell.pair, cell.arm), ArmProgress(cell.pair, cell.arm))
            arm.tasks += 1
            names = files.get(key, {})
            if key in self._finished:
                arm.done += 1
            elif LEASE in names and (running := self._running(key, names, now)) is not None:
                arm.running += 1
                found.running.append(running)
            elif FAILURE in names:
                arm.failed += 1
                failed.append((_touched(self.store.folder(key) / FAILURE), key))
        parts = {running.key: running.part or 0.0 for running in found.running}
        left = [key for key in self.plan.tasks if key not in self._finished]
        found.arms = list(arms.values())
        found.failures = {key: self.store.failure(key) or "for an unknown reason" for _, key in sorted(failed)}
        found.part = self.pace.part(self.plan, self._finished, left, parts)
        at_once = len(found.running)
        found.seconds_left = self.pace.seconds_left(self.plan, left, parts, at_once=at_once, now=now)
        return found

    def _running(self, key: str, names: Container[str], now: float) -> Running | None:
        folder = self.store.folder(key)
        try:
            holder = holder_of(folder / LEASE)
        except OSError:
            holder = None
        if holder is None:  # it has ended since the folder was listed
            return None
        is_silent = self._is_silent(key, holder.touched)
        begun = _touched(folder / SPEC) or now
        part = self._checkpointed(key, folder) if CHECKPOINT in names else None
        stall = stall_of(self.store, key, holder) if STALLED in names else None
        return Running(key, max(0.0, now - begun), part, holder.who.job, is_silent, stall)

    def _is_silent(self, key: str, touched: int) -> bool:
        """Whether a lease has been unchanged for longer than holders are waited for, by this process's own clock."""
        before, since = self._watched.get(key, (None, 0.0))
        if before != touched:
            self._watched[key] = (touched, time.monotonic())
            return False
        return time.monotonic() - since > PATIENCE

    def _checkpointed(self, key: str, folder: Path) -> float | None:
        """The share of a training's steps that its checkpoint has, from the note in the file's header."""
        spec = self.plan.tasks[key].spec
        if not isinstance(spec, TrainSpec):
            return None
        try:
            step = int(read_note(folder / CHECKPOINT)["progress"]["step"])
        except (OSError, ValueError, KeyError, TypeError):  # gone meanwhile, or no checkpoint of this program
            return None
        per_epoch = spec.recipe.steps_per_epoch(num_train_images(spec.data))
        end = min(spec.recipe.steps.count(per_epoch), spec.stop or spec.recipe.steps.count(per_epoch))
        return min(1.0, max(0.0, (step - spec.begin) / max(1, end - spec.begin)))


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
