"""`TrackedRun`: a training of a suite in the form of experiment trackers: a name, parameters, curves, final metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lthbench.suite.plan import Plan, describe
from lthbench.tasks.spec import TrainSpec
from lthbench.tasks.store import Store


@dataclass(frozen=True)
class TrackedRun:
    """A finished training.

    Attributes:
        key: of the task; a result never changes, so what is exported under a key needs no second export.
        folder: pair, arm and replicate, as the parts of a path.
        name: what is trained, with the first digits of the key.
        finished: seconds since 1970.
        parameters: of the recipe and all else that the specification sets, by dotted names.
        curves: name -> (step, value) in ascending order; steps of `epoch_...` are epochs, others iterations.
        metrics: at the end.
    """

    key: str
    folder: tuple[str, str, str]
    name: str
    finished: float
    parameters: dict[str, str]
    curves: dict[str, list[tuple[int, float]]]
    metrics: dict[str, float]


def tracked_runs(plan: Plan, store: Store) -> Iterator[TrackedRun]:
    """The finished trainings of a plan, under the first pair, arm and replicate that need them."""
    for key, task in plan.tasks.items():
        if not isinstance(task.spec, TrainSpec) or (result := store.result(key)) is None:
            continue
        cell = plan.cells[key]
        curves = {
            name.replace("epoch_losses", "epoch_loss").replace("epoch_distances", "epoch_distance"): [
                (epoch, float(value)) for epoch, value in enumerate(result.get(name, ()), 1)
            ]
            for name in ("epoch_losses", "epoch_distances")
        }
        curves["validation_curve"] = [(int(s), float(v)) for s, v in result.get("validation_curve", ())]
        yield TrackedRun(
            key=key,
            folder=(cell.pair, cell.arm, f"replicate-{cell.replicate}"),
            name=f"{describe(task).replace(' ', '-')}-{key[:8]}",
            finished=datetime.fromisoformat(result["finished"]).timestamp(),
            parameters=dict(_flat(task.spec.model_dump(mode="json", exclude_defaults=True))),
            curves={name: points for name, points in curves.items() if points},
            metrics={name: float(value) for name, value in result["metrics"].items()},
        )


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
