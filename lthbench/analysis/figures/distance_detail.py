"""Learning distance in detail: along training, and layer by layer."""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.analysis.figures.drawing import (
    Drawing,
    Grid,
    Series,
    by_x,
    described,
    format_mean_ci,
    numbers,
    plot,
    short_keys,
)
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import DASHES, Look, legend, panels
from lthbench.analysis.quantity import interval_text, quantity
from lthbench.analysis.table import Summary
from lthbench.experiments.distance import Distance

METRIC = "distance_relative"
_LAYER = f"{METRIC}/"


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, experiment in measured.made(Distance):
        yield from _along_training(measured, label, experiment.levels)
        yield from _by_layer(measured, label, experiment.levels)


def _look(measured: Measured, arm: str, levels: tuple[int, ...], level: int) -> Look:
    style = measured.look(arm)
    return Look(style.colour, style.marker, DASHES[levels.index(level) % len(DASHES)])


def _along_training(measured: Measured, label: str, levels: tuple[int, ...]) -> Iterator[Drawing]:
    found = [s for s in measured.of(label, METRIC) if s.variant.endswith("along training")]
    if not found:
        return
    series = []
    for arm in measured.arms(label):
        steps = sorted({s.step for s in found if s.arm == arm and s.step is not None})
        shown = set(steps[:: -max(1, -(-len(steps) // 6))])  # the curve is smooth: every number is in the tables
        for level in levels:
            members = [s for s in found if s.arm == arm and s.level == level and s.step in shown]
            series.append(by_x(f"{arm}, level {level}", _look(measured, arm, levels, level), members, _percent))
    figure, (axes,) = panels()
    points = plot(axes, series, "{:.3g} % of training".format)
    axes.set_xlabel("share of training (%)")
    axes.set_ylabel(quantity(METRIC).label)
    axes.set_ylim(bottom=0)
    legend(figure, axes)
    caption = "Relative learning distance along the training of the dense network (level 0) and of the tickets."
    yield Drawing(
        f"distance-along-training-{label}",
        "Learning distance along training",
        caption,
        figure,
        f"{caption} {described(series, '{:.3g} % of training'.format)}",
        numbers(series, ("network", "% of training"), "{:.3g}".format),
        tuple(points),
    )


def _percent(summary: Summary) -> float | None:
    return None if summary.share is None else 100 * summary.share


def _by_layer(measured: Measured, label: str, levels: tuple[int, ...]) -> Iterator[Drawing]:
    found = [s for s in measured.summaries if s.experiment == label and s.metric.startswith(_LAYER)]
    if not found:
        return
    layers = list(dict.fromkeys(s.metric.removeprefix(_LAYER) for s in found))
    series = []
    for arm in measured.arms(label):
        for level in levels:
            members = [
                (float(layers.index(s.metric.removeprefix(_LAYER))), s)
                for s in found
                if s.arm == arm and s.level == level
            ]
            series.append(Series(f"{arm}, level {level}", _look(measured, arm, levels, level), members))
    figure, (axes,) = panels()
    points = plot(axes, series, lambda x: layers[round(x)])
    if len(layers) <= 6:
        axes.set_xticks(range(len(layers)), layers, fontsize=7)
        axes.set_xlabel("layer")
    else:
        axes.set_xlabel("prunable layer, from input to output")
    axes.set_ylabel(quantity(METRIC).label)
    axes.set_ylim(bottom=0)
    legend(figure, axes)
    caption = "Relative learning distance of each prunable layer, from input to output, over its surviving weights."
    rows = [
        (s.arm, str(s.level), s.metric.removeprefix(_LAYER), interval_text(METRIC, s.interval), str(s.interval.n),
         short_keys(s.keys))
        for s in found
    ]  # fmt: skip
    farthest = [max(one.members, key=lambda member: member[1].interval.mean) for one in series if one.members]
    text = "; ".join(f"{s.arm}, level {s.level}: most in {layers[round(x)]}, {format_mean_ci(s)}" for x, s in farthest)
    yield Drawing(
        f"distance-by-layer-{label}",
        "Learning distance by layer",
        caption,
        figure,
        f"{caption} {text}.",
        Grid(("arm", "level", "layer", quantity(METRIC).label, "n", "tasks"), rows),
        tuple(points),
    )
