"""Cheap proxies against the onset k*: what one training of each recipe shows."""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.analysis.figures.drawing import Drawing, Grid, Point
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import legend, log_axis, look, panels
from lthbench.analysis.quantity import interval_text, quantity
from lthbench.analysis.stats.summary import Interval, mean_interval
from lthbench.analysis.table import ResultRow
from lthbench.experiments.sensitivity import Sensitivity
from lthbench.experiments.stability import Onset

PROXIES = ("noise_scale", "early_loss", "distance_relative", "test_accuracy")
SHARE, ABOVE = "onset_share", "onset_above_share"


def draw(measured: Measured) -> Iterator[Drawing]:
    labels = [label for kind in (Onset, Sensitivity) for label, _ in measured.made(kind)]
    recipes: dict[str, dict[str, dict[int, ResultRow]]] = {}
    for row in measured.rows:
        # `onset` of an onset experiment; `RECIPE` and `RECIPE: onset` of a sensitivity.
        change, _, what = row.variant.partition(": ")
        if change == "onset":
            change, what = "", "onset"
        if row.experiment in labels and what in ("", "onset") and row.metric in (*PROXIES, SHARE, ABOVE):
            name = f"{row.arm}, {change}" if change else row.arm
            recipes.setdefault(name, {}).setdefault(row.metric, {})[row.replicate] = row
    recipes = {name: found for name, found in recipes.items() if ABOVE in found}
    shown = [metric for metric in PROXIES if sum(metric in found for found in recipes.values()) > 1]
    if not shown:
        return
    marks = {
        100 * row.value for found in recipes.values() for of in (SHARE, ABOVE) for row in found.get(of, {}).values()
    }
    figure, axes = panels(len(shown), height=2.1)
    points: list[Point] = []
    rows = []
    for index, (name, found) in enumerate(recipes.items()):
        known = len(found.get(SHARE, {})) == len(found[ABOVE])
        onset = _interval(found[SHARE if known else ABOVE])
        at = ("" if known else "after ") + interval_text(SHARE, onset)
        told = {metric: interval_text(metric, _interval(of)) for metric in PROXIES if (of := found.get(metric))}
        rows.append((name, at, *(told.get(metric, "-") for metric in PROXIES), str(onset.n)))
        style = look(index)
        for metric, ax in zip(shown, axes, strict=True):
            if metric in found:
                x = _interval(found[metric]).mean * quantity(metric).scale
                marker = style.marker if known else "^"
                ax.plot([x], [100 * onset.mean], linestyle="none", color=style.colour, marker=marker, label=name)
                points.append(Point(ax, x, 100 * onset.mean, f"{name}: k* {at}, {told[metric]} (n = {onset.n})"))
    for metric, ax in zip(shown, axes, strict=True):
        unit = f" ({quantity(metric).unit})" if quantity(metric).unit else ""
        ax.set_xlabel(quantity(metric).label + unit)
        ax.set_ylabel("onset k* (% of training)")
        log_axis(ax, "y", marks, smallest=min((mark for mark in marks if mark), default=1.0))
    if len(recipes) <= 10:
        legend(figure, axes[0])
    caption = (
        "Mean onset k* of each recipe, as a share of its training, against what one training shows: noise scale (of "
        "SGD alone), loss after the first 5 %, relative learning distance, and accuracy. Where a replicate has none, "
        "the last unstable step is drawn."
    )
    text = "; ".join(f"{r[0]}: k* {r[1]}" for r in rows)
    columns = ("recipe", "onset k*", *(quantity(metric).label for metric in PROXIES), "n")
    yield Drawing(
        "proxies", "Proxies of stability", caption, figure, f"{caption} {text}.", Grid(columns, rows), tuple(points)
    )


def _interval(rows: dict[int, ResultRow]) -> Interval:
    return mean_interval([row.value for row in rows.values()])
