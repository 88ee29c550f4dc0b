"""The mask-search budget: accuracy of tickets whose masks were searched with a fraction of the training."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lthbench.analysis.figures.drawing import Drawing, by_x, described, numbers, plot
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import DASHES, Look, legend, log_axis, panels
from lthbench.experiments.aimp import Aimp

_BUDGET = re.compile(r"ticket, budget (\S+)")


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, aimp in measured.made(Aimp):
        series = []
        for arm in measured.arms(label):
            for index, level in enumerate(aimp.levels):
                style = measured.look(arm)
                members = [s for s in measured.of(label, "test_accuracy", arm) if s.level == level]
                named = Look(style.colour, style.marker, DASHES[index % len(DASHES)])
                series.append(by_x(f"{arm}, level {level}", named, members, lambda s: _budget(s.variant)))
        figure, (axes,) = panels()
        points = plot(axes, series, "budget {:g}".format)
        log_axis(axes, "x", (x for one in series for x, _ in one.members))
        axes.set_xlabel("budget b of each training of the mask search (1 is the whole)")
        axes.set_ylabel("test accuracy (%)")
        legend(figure, axes)
        caption = (
            "Test accuracy of tickets, trained in full, whose masks were searched with the fraction b of the training "
            f"at each level (AIMP, schedule {aimp.schedule}); b = 1 is iterative magnitude pruning itself."
        )
        yield Drawing(
            f"budget-{label}",
            "Mask-search budget" + ("" if aimp.schedule == "compressed" else f", schedule {aimp.schedule}"),
            caption,
            figure,
            f"{caption} {described(series, 'budget {:g}'.format)}",
            numbers(series, ("tickets", "budget"), "{:g}".format),
            tuple(points),
        )


def _budget(variant: str) -> float | None:
    match = _BUDGET.fullmatch(variant)
    return float(match[1]) if match else None
