"""The time of a training against density: what sparsity saves, as it was measured when the suite was run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lthbench.analysis.figures.drawing import Drawing, by_x, described, numbers, plot
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import legend, log_axis, panels
from lthbench.analysis.stats.summary import mean_interval
from lthbench.analysis.table import Summary
from lthbench.experiments.imp import Imp


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, _ in measured.made(Imp):
        series = [
            by_x(arm, measured.look(arm), _times(measured, label, arm), lambda s: s.density and 100 * s.density)
            for arm in measured.arms(label)
        ]
        if not any(len(one.members) > 1 for one in series):
            continue
        figure, (axes,) = panels()
        points = plot(axes, series, "{:.3g} %".format)
        log_axis(axes, "x", (x for one in series for x, _ in one.members))
        axes.invert_xaxis()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("density (% of the prunable weights)")
        axes.set_ylabel("seconds of a training")
        legend(figure, axes)
        where = ", ".join(sorted(set(_machines(measured, label))))
        caption = (
            "Seconds of one training, with its evaluation, against density; level 0 is the dense network, and a "
            "rewound ticket takes fewer steps. They were "
            f"taken while the suite ran (on {where}), and count what else those machines did; `lthbench bench engine` "
            "compares the engines."
        )
        yield Drawing(
            f"training-time-{label}", "Time of a training", caption, figure,
            f"{caption} {described(series, '{:.3g} %'.format)}",
            numbers(series, ("tickets", "density (%)"), "{:.3g}".format), tuple(points),
        )  # fmt: skip


def _times(measured: Measured, label: str, arm: str) -> Iterator[Summary]:
    """The seconds of an arm's trainings by level."""
    for tickets in measured.of(label, "test_accuracy", arm):
        if tickets.variant in ("ticket", "dense"):
            seconds = [float(measured.result_of(key).get("seconds", 0)) for key in tickets.keys]
            yield replace(tickets, metric="seconds", interval=mean_interval(seconds))


def _machines(measured: Measured, label: str) -> Iterator[str]:
    for key in (key for tickets in measured.of(label, "test_accuracy") for key in tickets.keys):
        environment = measured.result_of(key).get("environment", {})
        device = str(environment.get("device", "an unknown device"))
        yield str(environment.get("processor") or device) if device in ("x86_64", "aarch64", "arm64") else device
