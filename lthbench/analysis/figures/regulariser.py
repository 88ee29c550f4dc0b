"""Dose and response of the L2-to-init penalty: accuracy and distance by strength, where it acts, its controls."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lthbench.analysis.figures.drawing import Drawing, Grid, Point, by_x, described, format_mean_ci, numbers, plot
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import MUTED, legend, log_axis, look, panels
from lthbench.analysis.quantity import quantity
from lthbench.analysis.table import Summary
from lthbench.experiments.imp import Imp
from lthbench.experiments.regulariser import Regulariser

_PULL = re.compile(r"pull (?P<strength>\S+) in (?P<what>.+)")
_CONTROL = re.compile(r"(?P<what>\S+) for pull (?P<strength>\S+)")
METRICS = ("test_accuracy", "search_distance")


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, _ in measured.made(Regulariser):
        for arm in measured.arms(label):
            levels = sorted({s.level or 0 for s in measured.of(label, METRICS[0], arm)} - {0})
            for level in levels:
                yield from _dose(measured, label, arm, level)


def _dose(measured: Measured, label: str, arm: str, level: int) -> Iterator[Drawing]:
    figure, axes = panels(2, height=2.6)
    points: list[Point] = []
    table: list[tuple[str, ...]] = []
    texts = []
    for metric, ax in zip(METRICS, axes, strict=True):
        members = [s for s in measured.of(label, metric, arm) if s.level == level]
        groups: dict[str, list[Summary]] = {}
        for s in members:
            if placed := _placed(s.variant):
                groups.setdefault(placed[0], []).append(s)
        series = [
            by_x(what, look(index), found, lambda s: (_placed(s.variant) or ("", None))[1])
            for index, (what, found) in enumerate(groups.items())
        ]
        strengths = [x for one in series for x, _ in one.members if x > 0]
        if plain := _without(measured, arm, level, metric):
            ax.axhline(
                plain.interval.mean * quantity(metric).scale,
                color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)), label="without",
            )  # fmt: skip
            texts.append(f"Without it: {format_mean_ci(plain)}.")
        points += plot(ax, series, "strength {:g}".format)
        log_axis(ax, "x", strengths, smallest=min(strengths, default=1.0))
        ax.set_title(quantity(metric).label + (f" ({quantity(metric).unit})" if quantity(metric).unit else ""))
        texts.append(f"{quantity(metric).label.capitalize()}: {described(series, 'strength {:g}'.format)}")
        numbers_ = numbers(series, ("what", "strength"), "{:g}".format)
        table += [(what, x, quantity(metric).label, *rest) for what, x, *rest in numbers_.rows]
    if not table:
        return
    doses = {strength for _, strength, *_ in table}
    axes[0].set_xlabel("")
    axes[1].set_xlabel("strength lambda (that a control is made for)")
    legend(figure, axes[0])
    caption = (
        f"Tickets of level {level} of the arm {arm} by the strength of the pull towards the initial weights: in mask "
        "search, in ticket training, or both; and the controls in the mask search. The relative distance is that "
        "of the dense network of the mask search, which the pull and the matched controls are to lower."
    )
    yield Drawing(
        f"regulariser-{label}-{arm}-level-{level}",
        f"{arm}: {'dose and response' if len(doses) > 1 else 'tickets and controls'} of the regulariser, level {level}",
        caption,
        figure,
        f"{caption} {' '.join(texts)}",
        Grid(("what", "strength", "metric", "value", "n", "tasks"), table),
        tuple(points),
        is_table=len(doses) < 2,
    )


def _placed(variant: str) -> tuple[str, float] | None:
    """What a variant is (where the penalty acts, or which control) and its strength."""
    match = _PULL.fullmatch(variant) or _CONTROL.fullmatch(variant)
    if match is None:
        return None
    what = match["what"]
    return (f"pull in {what}" if match.re is _PULL else what), float(match["strength"])


def _without(measured: Measured, arm: str, level: int, metric: str) -> Summary | None:
    """The plain ticket of the arm and level, or the distance of the plain dense network."""
    if metric == "search_distance":
        level, metric = 0, "distance_relative"
    for label, experiment in measured.made(Imp):
        if str(experiment.rewind) == "0it":
            for s in measured.of(label, metric, arm):
                if s.level == level and s.variant != "mask":
                    return s
    return None
