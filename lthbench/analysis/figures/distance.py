"""Learning distance: per level, and against the accuracy of the same networks."""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.analysis.figures.accuracy import METRIC, density_axis, density_text
from lthbench.analysis.figures.drawing import (
    Drawing,
    Grid,
    Point,
    by_x,
    described,
    format_mean_ci,
    numbers,
    plot,
    short_keys,
)
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import legend, panels
from lthbench.analysis.quantity import quantity
from lthbench.experiments.imp import Imp

DISTANCES = ("distance_relative", "distance", "distance_angle")


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, experiment in measured.made(Imp):
        if str(experiment.rewind) == "0it":  # a rewound ticket's start is no initialisation
            yield from _per_level(measured, label)
            yield from _against_accuracy(measured, label)


def _per_level(measured: Measured, label: str) -> Iterator[Drawing]:
    found = [m for m in DISTANCES if any(s.variant != "mask" for s in measured.of(label, m))]
    if not found:
        return
    figure, axes = panels(len(found), height=2.2)
    points: list[Point] = []
    tables, texts = [], []
    for metric, ax in zip(found, axes, strict=True):
        series = [
            by_x(
                arm,
                measured.look(arm),
                [s for s in measured.of(label, metric, arm) if s.variant != "mask"],
                lambda s: s.density,
            )
            for arm in measured.arms(label)
        ]
        points += plot(ax, series, density_text)
        density_axis(ax, series)
        ax.set_title(quantity(metric).label)
        ax.set_ylim(bottom=0)
        texts.append(f"{quantity(metric).label.capitalize()}: {described(series, density_text)}")
        table = numbers(series, ("arm", "density"), density_text)
        tables += [(arm, density, quantity(metric).label, *rest) for arm, density, *rest in table.rows]
    for ax in axes[:-1]:
        ax.set_xlabel("")
    legend(figure, axes[0])
    caption = (
        "How far training moved the surviving weights from where it started, by density: relative to the norm of "
        "these weights at the start, as it is, and as an angle (2 arccos / pi)."
    )
    columns = ("arm", "density", "distance", "value", "n", "tasks")
    yield Drawing(
        f"distance-{label}",
        "Learning distance by density",
        caption,
        figure,
        f"{caption} {' '.join(texts)}",
        Grid(columns, [tuple(row) for row in tables]),
        tuple(points),
    )


def _against_accuracy(measured: Measured, label: str) -> Iterator[Drawing]:
    metric = DISTANCES[0]
    rows, points, texts = [], [], []
    figure, (axes,) = panels()
    for arm in measured.arms(label):
        distances = {s.level: s for s in measured.of(label, metric, arm) if s.variant != "mask"}
        pairs = [(distances[s.level], s) for s in measured.of(label, METRIC, arm) if s.level in distances]
        if not pairs:
            continue
        look = measured.look(arm)
        xs = [d.interval.mean for d, _ in pairs]
        ys = [100 * a.interval.mean for _, a in pairs]
        axes.plot(xs, ys, color=look.colour, marker=look.marker, linestyle="none", label=arm, alpha=0.85)
        axes.errorbar(
            xs,
            ys,
            xerr=[d.interval.half_width or 0 for d, _ in pairs],
            yerr=[100 * (a.interval.half_width or 0) for _, a in pairs],
            fmt="none",
            ecolor=look.colour,
            elinewidth=0.5,
        )
        for (d, a), x, y in zip(pairs, xs, ys, strict=True):
            density = density_text(a.density or 1.0)
            points.append(
                Point(
                    axes, x, y, f"{arm}, density {density}: accuracy {format_mean_ci(a)}, distance {format_mean_ci(d)}"
                )
            )
            rows.append((arm, density, format_mean_ci(d), format_mean_ci(a), short_keys(a.keys)))
        texts.append(
            f"{arm}: distances from {min(xs):.3f} to {max(xs):.3f}, accuracies {min(ys):.1f} to {max(ys):.1f} %"
        )
    if not rows:
        return
    axes.set_xlabel("relative learning distance")
    axes.set_ylabel("test accuracy (%)")
    legend(figure, axes)
    caption = "Accuracy against learning distance; a point is one arm at one level, with 95 % intervals both ways."
    table = Grid(("arm", "density", "relative learning distance", "test accuracy", "tasks"), rows)
    title = "Accuracy against learning distance"
    yield Drawing(
        f"accuracy-distance-{label}", title, caption, figure, f"{caption} {'; '.join(texts)}.", table, tuple(points)
    )
