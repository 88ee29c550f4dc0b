"""Convergence and forgetting by density: what the paper's earlier version measured and its revision dropped."""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.analysis.figures.accuracy import density_axis, density_text
from lthbench.analysis.figures.drawing import Drawing, Grid, Point, by_x, described, numbers, plot
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import DASHES, Look, legend, panels
from lthbench.analysis.quantity import quantity
from lthbench.experiments.convergence import Convergence

METRICS = ("share_to_converge", "forgetting_events")


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, experiment in measured.made(Convergence):
        found = [metric for metric in METRICS if measured.of(label, metric)]
        if not found:
            continue
        figure, axes = panels(len(found), height=2.6)
        points: list[Point] = []
        texts, rows = [], []
        for metric, ax in zip(found, axes, strict=True):
            series = []
            for arm in measured.arms(label):
                style = measured.look(arm)
                for index, network in enumerate(("dense", *experiment.networks)):
                    members = [s for s in measured.of(label, metric, arm) if s.variant == network]
                    named = Look(style.colour, style.marker, DASHES[index % len(DASHES)])
                    series.append(by_x(f"{arm}, {network}", named, members, lambda s: s.density))
            points += plot(ax, series, density_text)
            density_axis(ax, series)
            ax.set_ylabel(quantity(metric).label)
            texts.append(f"{quantity(metric).label.capitalize()}: {described(series, density_text)}")
            table = numbers(series, ("network", "density"), density_text)
            rows += [(what, x, quantity(metric).label, *rest) for what, x, *rest in table.rows]
        for ax in axes[:-1]:
            ax.set_xlabel("")
        legend(figure, axes[0])
        caption = (
            f"Share of training until the validation accuracy first reaches {100 * experiment.share:g} % of what the "
            "same arm's dense network ends with (mean over the replicates that reach it), and forgetting events."
        )
        yield Drawing(
            f"convergence-{label}",
            "Convergence and forgetting",
            caption,
            figure,
            f"{caption} {' '.join(texts)}",
            Grid(("network", "density", "metric", "value", "n", "tasks"), rows),
            tuple(points),
        )
