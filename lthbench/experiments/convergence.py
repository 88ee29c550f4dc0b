"""Convergence speed and forgetting, which the paper's earlier version measured and its revision dropped.

Its trainings are tracked, so they are not shared with other experiments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from lthbench.experiments.cell import Cell, Result
from lthbench.experiments.controls import Kind, control
from lthbench.experiments.experiment import Experiment, Measurement, PrunedLevels
from lthbench.fault import Fault
from lthbench.tasks.spec import Task
from lthbench.training.steps import Steps

FORGETTING = ("forgetting_events", "forgettable_share", "never_learned_share")
CONVERGED = ("converged", "steps_to_converge", "epochs_to_converge", "share_to_converge", "share_unconverged")

Network = Literal["ticket", Kind]


class Convergence(Experiment):
    """How soon a network reaches most of the dense network's validation accuracy, and how often it forgets.

    Measurements: `dense` (level 0) and the names of `networks`, with `test_accuracy`; `converged`, 1 if the validation
        accuracy reached `share` of the final accuracy of the same arm's dense network, else 0; the first measured point
        at which it did, in iterations, epochs and as a share of training (`steps_to_converge`, `epochs_to_converge`,
        `share_to_converge`), missing if it did not; `share_unconverged`, the measured point before that, or the whole
        of training if it did not; and forgetting (training/forgetting.py). Arms are compared by shares.

    Attributes:
        networks: the ticket and its controls.
        levels: their levels.
        every: the steps between two measurements, which is the resolution.
        share: of the dense network's final validation accuracy.
    """

    shown: ClassVar[tuple[str, ...]] = (
        "share_to_converge",
        "steps_to_converge",
        "converged",
        "forgetting_events",
        "forgettable_share",
    )
    variants: ClassVar = ("dense", *get_args(Network))
    metrics: ClassVar = ("test_accuracy", *FORGETTING, *CONVERGED)

    networks: Annotated[tuple[Network, ...], Field(min_length=1)] = ("ticket", "reinit")
    levels: PrunedLevels
    every: Steps = Steps(epochs=1)
    share: Annotated[float, Field(gt=0, le=1)] = 0.95

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        every = max(1, cell.iterations(self.every))
        dense = cell.dense().with_fields(track=every)
        networks: list[tuple[str, int, Task]] = [("dense", 0, dense)]
        for level in self.levels:
            for network in self.networks:
                task = cell.ticket(level) if network == "ticket" else control(cell, network, level, 0)
                networks.append((network, level, task.with_fields(track=every)))
        metrics = ("test_accuracy", *FORGETTING)
        compute = partial(self.convergence, per_epoch=cell.steps_per_epoch())
        for variant, level, task in networks:
            yield Measurement(task, variant, metrics, level=level, others=(dense,), compute=compute)

    def faults(self, cell: Cell) -> Iterator[Fault]:
        if not cell.data.validation:
            yield Fault((), "convergence is measured by validation accuracy; give the pair's data a `validation`")
        if (every := cell.iterations(self.every)) > (total := cell.iterations(cell.recipe.steps)):
            yield Fault(("every",), f"{self.every}, {every:,} iterations, is longer than the training of {total:,}")

    def convergence(self, results: Sequence[Result], per_epoch: int) -> dict[str, float]:
        """The convergence of the first of two tracked trainings, the second that of the dense network.

        None without measurements of the one and an accuracy of the other.
        """
        curve, steps = results[0].get("validation_curve"), results[0].get("steps")
        dense = results[1]["metrics"].get("validation_accuracy")
        if not curve or steps is None or dense is None:
            return {}
        goal = self.share * dense
        begin, end = steps
        before = begin
        for step, accuracy in curve:
            if accuracy >= goal:
                taken = step - begin
                return {
                    "converged": 1.0,
                    "steps_to_converge": float(taken),
                    "epochs_to_converge": taken / per_epoch,
                    "share_to_converge": taken / (end - begin),
                    "share_unconverged": (before - begin) / (end - begin),
                }
            before = step
        return {"converged": 0.0, "share_unconverged": 1.0}
