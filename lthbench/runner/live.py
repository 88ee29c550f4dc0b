"""What runs of a suite at this moment, from its store alone: so it is the same for local workers and for Slurm."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from safetensors import safe_open

from lthbench.data.spec import num_train_images
from lthbench.runner.lease import PATIENCE
from lthbench.runner.store import Store
from lthbench.suite.plan import Plan
from lthbench.tasks.layout import CHECKPOINT, FAILURE, LEASE, SPEC
from lthbench.tasks.spec import TrainSpec

WINDOW = 900.0  # seconds over which the rate is taken


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
        seconds: since it was begun or taken up again.
        part: of its steps that its last checkpoint has; None before the first one.
        job: of Slurm, or empty.
        is_silent: whether its lease has gone untouched for so long that another process may take it.
    """

    key: str
    seconds: float
    part: float | None
    job: str
    is_silent: bool


@dataclass
class Snapshot:
    """A suite at one moment.

    Attributes:
        failures: key -> reason, newest last.
        part: of the work in image passes that is done, with that of checkpoints.
        seconds_left: at the rate of the last quarter of an hour; None where nothing was finished in it.
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
    """Looks at a plan's store again and again; what was done at one look is not looked at in the next."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self._finished: dict[str, float] = {}  # key -> seconds since 1970

    def look(self) -> Snapshot:
        """How it stands now."""
        now = time.time()
        files = self.store.files([key for key in self.plan.tasks if key not in self._finished])
        arms: dict[tuple[str, str], ArmProgress] = {}
        found = Snapshot([])
        failed: list[tuple[float, str]] = []
        reached = 0.0
        for key in self.plan.tasks:
            cell = self.plan.cells[key]
            arm = arms.setdefault((cell.pair, cell.arm), ArmProgress(cell.pair, cell.arm))
            arm.tasks += 1
            names = files.get(key, frozenset())
            if key in self._finished or self._is_finished(key, names):
                arm.done += 1
                reached += self.plan.cost[key]
            elif LEASE in names and (running := self._running(key, names, now)) is not None:
                arm.running += 1
                found.running.append(running)
                reached += self.plan.cost[key] * (running.part or 0.0)
            elif FAILURE in names:
                arm.failed += 1
                failed.append((_touched(self.store.folder(key) / FAILURE), key))
        total = sum(self.plan.cost.values())
        found.arms = list(arms.values())
        found.failures = {key: self.store.failure(key) or "for an unknown reason" for _, key in sorted(failed)}
        found.part = reached / total if total else 1.0
        rate = self._rate(now)
        found.seconds_left = (total - reached) / rate if rate else None
        return found

    def _is_finished(self, key: str, names: frozenset[str]) -> bool:
        if not names or not self.store.is_done(key, self.plan.kept(key), names):
            return False
        result = self.store.result(key) or {}
        at = result.get("finished")
        self._finished[key] = datetime.fromisoformat(at).timestamp() if at else 0.0
        return True

    def _running(self, key: str, names: frozenset[str], now: float) -> Running | None:
        folder = self.store.folder(key)
        try:
            holder = json.loads((folder / LEASE).read_text() or "{}")
        except FileNotFoundError:  # it has ended since the folder was listed
            return None
        except ValueError:
            holder = {}
        job = str(holder.get("job", "")) if isinstance(holder, dict) else ""
        is_silent = now - _touched(folder / LEASE) > PATIENCE
        begun = _touched(folder / SPEC) or now
        part = self._checkpointed(key, folder) if CHECKPOINT in names else None
        return Running(key, max(0.0, now - begun), part, job, is_silent)

    def _checkpointed(self, key: str, folder: Path) -> float | None:
        """The part of a training's steps that its checkpoint has, by the note in the file's head."""
        spec = self.plan.tasks[key].spec
        if not isinstance(spec, TrainSpec):
            return None
        try:
            with safe_open(folder / CHECKPOINT, framework="np") as file:
                step = int(json.loads((file.metadata() or {}).get("note", "{}"))["step"])
        except (OSError, ValueError, KeyError):  # gone meanwhile, or no checkpoint of this program
            return None
        per_epoch = spec.recipe.steps_per_epoch(num_train_images(spec.data))
        end = min(spec.recipe.steps.count(per_epoch), spec.stop or spec.recipe.steps.count(per_epoch))
        return min(1.0, max(0.0, (step - spec.begin) / max(1, end - spec.begin)))

    def _rate(self, now: float) -> float | None:
        """Image passes a second, of what was finished in the last quarter of an hour."""
        recent = {key: at for key, at in self._finished.items() if now - at < WINDOW}
        if not recent:
            return None
        return sum(self.plan.cost[key] for key in recent) / max(1.0, now - min(recent.values()))


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
