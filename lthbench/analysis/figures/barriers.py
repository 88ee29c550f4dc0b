"""Barriers: the error along the linear paths between children of one spawn, and the barrier by spawn."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.ticker import MaxNLocator

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
from lthbench.analysis.figures.style import DASHES, MUTED, Look, legend, panels
from lthbench.analysis.quantity import interval_text
from lthbench.analysis.stats.summary import Interval, mean_interval
from lthbench.analysis.table import Summary
from lthbench.experiments.stability import LevelBarriers, Stability

METRIC = "test_barrier"


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, stability in measured.made(Stability):
        for level in stability.levels:
            for variant in dict.fromkeys(s.variant for s in measured.of(label, METRIC)):
                yield from _curves(measured, label, level, variant)
    for label, _ in measured.made(LevelBarriers):
        yield _between_levels(measured, label)


def _between_levels(measured: Measured, label: str) -> Drawing:
    found = measured.of(label, METRIC)
    variants = list(dict.fromkeys(s.variant for s in found))
    series = []
    for arm in measured.arms(label):
        for index, variant in enumerate(variants):
            style = measured.look(arm)
            members = [s for s in found if s.arm == arm and s.variant == variant]
            named = Look(style.colour, style.marker, DASHES[index % len(DASHES)])
            series.append(by_x(f"{arm}, {variant.removeprefix('barrier ')}", named, members, lambda s: s.level))
    figure, (axes,) = panels()
    points = plot(axes, series, "level {:.0f}".format)
    axes.axhline(2, color=MUTED, linewidth=0.9, linestyle=(0, (1, 1.5)))
    axes.set_xlabel("level")
    axes.set_ylabel("test error barrier (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, axes)
    caption = (
        "Barrier from the trained ticket of a level to that of the level before, and to the dense network. The dotted "
        "line is 2 %, under which two networks are taken to be linearly connected."
    )
    return Drawing(
        f"level-barriers-{label}",
        "Barriers between levels",
        caption,
        figure,
        f"{caption} {described(series, 'level {:.0f}'.format)}",
        numbers(series, ("tickets", "level"), "{:.0f}".format),
        tuple(points),
    )


def _curves(measured: Measured, label: str, level: int, variant: str) -> Iterator[Drawing]:
    barriers = [s for s in measured.of(label, METRIC) if s.level == level and s.variant == variant]
    if not barriers:
        return
    figure, (axes,) = panels()
    points: list[Point] = []
    rows, texts = [], []
    spawns = {arm: sorted({s.step or 0 for s in barriers if s.arm == arm}) for arm in {s.arm for s in barriers}}
    for barrier in barriers:
        arm, spawn = measured.look(barrier.arm), barrier.step or 0
        # The spawns of a suite are the same for all arms, in whatever iterations.
        style = Look(arm.colour, arm.marker, DASHES[spawns[barrier.arm].index(spawn) % len(DASHES)])
        name = f"{barrier.arm}, spawned at {100 * (barrier.share or 0):.3g} % ({spawn:,} it)"
        alphas, errors = _errors(measured, barrier)
        means = [100 * e.mean for e in errors]
        axes.plot(alphas, means, color=style.colour, linestyle=style.dash, label=name)
        if all(e.half_width is not None for e in errors):
            low = [100 * (e.mean - (e.half_width or 0)) for e in errors]
            high = [100 * (e.mean + (e.half_width or 0)) for e in errors]
            axes.fill_between(alphas, low, high, color=style.colour, alpha=0.13, linewidth=0)
        points += [
            Point(axes, x, y, f"{name}, alpha {x:.2f}: error {interval_text('test_barrier', e)} (n = {e.n})")
            for index, (x, y, e) in enumerate(zip(alphas, means, errors, strict=True))
            if index % 5 == 0 or y == max(means)
        ]
        rows.append(
            (barrier.arm, f"{100 * (barrier.share or 0):.3g}", str(spawn), f"{barrier.epoch or 0:.3g}",
             interval_text(METRIC, barrier.interval), str(barrier.interval.n), short_keys(barrier.keys))
        )  # fmt: skip
        texts.append(f"{name}: barrier {format_mean_ci(barrier)}")
    axes.set_xlabel("alpha, from one child to the other")
    axes.set_ylabel("test error (%)")
    axes.set_xlim(0, 1)
    legend(figure, axes)
    what = "the dense network" if level == 0 else f"the subnetwork of level {level}"
    caption = (
        f"Test error along the line between two children of {what}, trained with different SGD noise from the step "
        "at which they were spawned, a share of the arm's own training; mean over replicates, with its 95 % interval "
        "shaded. The barrier is the highest point minus the mean of the ends; under 2 % the network is stable."
    )
    statistics = variant.removeprefix("barrier")
    # Several experiments may have children of one level: each title is one drawing's.
    named = "" if label == "stability" else f" ({label})"
    yield Drawing(
        f"barriers-{label}-level-{level}{'-recomputed' if statistics else ''}",
        "Error between children" + (f", level {level}" if level else "") + statistics + named,
        caption,
        figure,
        f"{caption} {'; '.join(texts)}.",
        Grid(("arm", "spawn (% of training)", "(it)", "(ep)", "test barrier", "n", "tasks"), rows),
        tuple(points),
    )


def _errors(measured: Measured, barrier: Summary) -> tuple[list[float], list[Interval]]:
    """The test error at every alpha, over replicates; several paths of one replicate count once."""
    chosen = (barrier.experiment, barrier.arm, barrier.variant, barrier.level, barrier.step, METRIC)
    lines: dict[int, list[list[float]]] = {}
    alphas: list[float] = []
    for row in measured.rows:
        if (row.experiment, row.arm, row.variant, row.level, row.step, row.metric) == chosen:
            result = measured.result_of(row.key)
            alphas = result["alphas"]
            lines.setdefault(row.replicate, []).append(result["curves"]["test_error"])
    of_replicate = [[sum(at) / len(at) for at in zip(*curves, strict=True)] for curves in lines.values()]
    return alphas, [mean_interval(at) for at in zip(*of_replicate, strict=True)]
