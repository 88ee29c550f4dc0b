"""What a plan costs: tasks, trainings, image passes, floating-point operations, disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lthbench.suite.model_cost import model_cost
from lthbench.suite.plan import Plan
from lthbench.tasks.spec import MaskSpec, Task, TrainSpec


class _Store(Protocol):
    def missing(self, wanted: Mapping[str, frozenset[int]]) -> list[str]: ...


@dataclass
class Cost:
    """The cost of one pair, one experiment, one kind of task, or all.

    Attributes:
        shared: tasks that more than one experiment needs.
        image_passes: forward and backward pass of one image is 1, forward alone 1/3.
        flops: floating-point operations, multiply and add counted apart; backward as twice forward.
        disk_bytes: when all is done, of weights (float32; pruned ones take a bit) and masks (one bit per weight).
        hours: device -> hours of what is not done yet; None if a rate is missing.
    """

    name: str
    tasks: int = 0
    done: int = 0
    shared: int = 0
    trainings: int = 0
    image_passes: float = 0.0
    flops: float = 0.0
    disk_bytes: float = 0.0
    hours: dict[str, float | None] = field(default_factory=dict)
    is_last_of_section: bool = False


def plan_cost(plan: Plan, store: _Store, seconds: Mapping[str, Mapping[str, float | None]] | None = None) -> list[Cost]:
    """Costs by pair, by experiment, by kind of task, of the selection replicates, and in all.

    A shared task counts in each line that needs it.

    Args:
        seconds: device -> key of a task -> how long it takes there.
    """
    seconds = seconds or {}
    total, selection = Cost("all"), Cost("selection replicates")
    pairs: dict[str, Cost] = {}
    experiments: dict[str, Cost] = {}
    kinds: dict[str, Cost] = {}
    pruned: dict[tuple[str, int], int] = {}
    missing = set(store.missing({key: plan.kept(key) for key in plan.tasks}))
    for key, task in plan.tasks.items():
        spec, cell = task.spec, plan.cells[key]
        model = model_cost(cell.model, cell.data)
        level, disk = _level(task), 0.0
        if isinstance(spec, MaskSpec):
            disk = sum(model.prunable.values()) / 8
        elif isinstance(spec, TrainSpec):
            if (cell.pair, level) not in pruned:
                pruned[cell.pair, level] = model.pruned_weights(cell.pruning, level)
            bits = sum(model.prunable.values()) if level else 0
            weights = model.parameter_bytes - 4 * pruned[cell.pair, level] + bits / 8
            disk = weights * (1 + len(plan.kept(key)))
        done = key not in missing
        lines = [
            total,
            pairs.setdefault(cell.pair, Cost(cell.pair)),
            kinds.setdefault(spec.kind, Cost(spec.kind)),
        ]
        lines += [experiments.setdefault(name, Cost(name)) for name in sorted(plan.users[key])]
        lines += [selection] if cell.is_selection else []
        for line in lines:
            line.tasks += 1
            line.done += done
            line.shared += len(plan.users[key]) > 1
            line.trainings += isinstance(spec, TrainSpec)
            line.image_passes += plan.cost[key]
            line.flops += 3 * plan.cost[key] * model.forward_flops
            line.disk_bytes += disk
            for device, of_task in seconds.items():
                line.hours[device] = _plus(line.hours.get(device, 0.0), 0.0 if done else of_task[key])
    last = [selection, total] if selection.tasks else [total]
    sections = [list(kinds.values()), list(experiments.values()), list(pairs.values()), last]
    for section in sections:
        section[-1].is_last_of_section = True
    return [line for section in sections for line in section]


def _level(task: Task) -> int:
    """The level of the mask that holds in a training."""
    return max((t.spec.level for t in task.inputs if isinstance(t.spec, MaskSpec)), default=0)


def _plus(hours: float | None, seconds: float | None) -> float | None:
    return None if hours is None or seconds is None else hours + seconds / 3600


def in_words(hours: float | None) -> str:
    """Hours as text: 3 h, 20 min, 5 s."""
    if hours is None:
        return "not measured"
    if hours < 1:
        return f"{60 * hours:.2g} min" if hours * 60 >= 1 else f"{3600 * hours:.2g} s"
    return f"{hours:,.0f} h" if hours >= 100 else f"{hours:.3g} h"
