"""Learning distance in detail: in all forms, by layer, and along training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from lthbench.experiments.cell import Cell, Result
from lthbench.experiments.experiment import DISTANCE, Experiment, Level, Measurement

FORMS = ("distance", "distance_rms", "distance_relative")


class Distance(Experiment):
    """How far the tickets of some levels move from their initialisation; it adds no training.

    Measurements: `dense` (level 0) and `ticket`, with the distance in all forms, `overlap` (the share of the largest 20
    % of weights that stay the largest, the mean of layers) and `path_length`; `dense, by layer` and `ticket, by layer`,
    with `distance_relative/LAYER` and `overlap/LAYER`; `dense, along training` and `ticket, along training`, with
    `distance`, `distance_rms` and `distance_relative` at some iterations.

    Attributes:
        levels: pruning levels; 0 is the dense network.
        points: the distance along training is reported at about so many evenly spaced ends of epochs.
    """

    shown: ClassVar[tuple[str, ...]] = ("distance", "distance_relative", "distance_angle", "path_length", "overlap")
    variants: ClassVar = tuple(
        f"{name}{of}" for name in ("dense", "ticket") for of in ("", ", by layer", ", along training")
    )
    metrics: ClassVar = (*DISTANCE, "distance_relative/*", "overlap/*")

    levels: Annotated[tuple[Level, ...], Field(min_length=1)]
    points: Annotated[int, Field(ge=1, le=10_000)] = 20

    def measurements(self, cell: Cell) -> Iterator[Measurement]:
        total, per_epoch = cell.iterations(cell.recipe.steps), cell.steps_per_epoch()
        num_epochs = -(-total // per_epoch)
        epochs = sorted({max(1, round(n * num_epochs / self.points)) for n in range(1, self.points + 1)})
        for level in self.levels:
            ticket, variant = cell.ticket(level), "ticket" if level else "dense"
            yield Measurement(ticket, variant, DISTANCE, level=level)
            yield Measurement(ticket, f"{variant}, by layer", level=level, compute=by_layer)
            for epoch in epochs:
                step, compute = min(epoch * per_epoch, total), after(epoch)
                yield Measurement(ticket, f"{variant}, along training", level=level, step=step, compute=compute)


def by_layer(results: Sequence[Result]) -> dict[str, float]:
    """The relative distance and the overlap of every prunable layer."""
    forms = {"distance_relative": "layer_distance", "overlap": "layer_overlap"}
    return {
        f"{form}/{layer}": value for form, name in forms.items() for layer, value in results[0].get(name, {}).items()
    }


def after(epoch: int) -> Callable[[Sequence[Result]], Mapping[str, float]]:
    """A `compute` of the distances after an epoch (counted from 1).

    All forms but the angle differ by a factor that is constant during training.
    """

    def distances(results: Sequence[Result]) -> dict[str, float]:
        by_epoch, end = results[0].get("epoch_distances", ()), results[0]["metrics"]
        if not end.get("distance") or len(by_epoch) < epoch:
            return {}
        return {form: by_epoch[epoch - 1] * end[form] / end["distance"] for form in FORMS if form in end}

    return distances
