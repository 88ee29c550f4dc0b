"""`Drawing`: a figure with its title, caption, description, numbers and hover texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from lthbench.analysis.figures.style import Look
from lthbench.analysis.quantity import interval_text, quantity
from lthbench.analysis.table import Summary

KEY_DIGITS = 8
_BESIDE = 2.4  # points (1/72 inch) between series at one x, so that their intervals do not cover each other


@dataclass(frozen=True)
class Point:
    """A point in a figure and its text.

    Attributes:
        x, y: in the data's coordinates.
        aside: how far to the right of them it is drawn, in points (1/72 inch).
    """

    axes: Axes
    x: float
    y: float
    text: str
    aside: float = 0.0


@dataclass(frozen=True)
class Grid:
    """A table: titles of columns, rows of cells."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Drawing:
    """A figure with its texts.

    Attributes:
        name: part of a file name, unique within a pair.
        description: what the figure shows, with its numbers, for readers who cannot see it.
        numbers: every number that is drawn, with its interval, n and tasks.
        is_table: whether these say more than the figure, as where there is a single dose.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    description: str
    numbers: Grid
    points: tuple[Point, ...] = ()
    is_table: bool = False


@dataclass
class Series:
    """A line of a figure: summaries of one metric over x."""

    label: str
    look: Look
    members: list[tuple[float, Summary]] = field(default_factory=list)


def by_x(label: str, look: Look, members: Iterable[Summary], x: Callable[[Summary], float | None]) -> Series:
    """The series of some summaries, in ascending order of x; those without one are left out."""
    placed = [(at, s) for s in members if (at := x(s)) is not None]
    return Series(label, look, sorted(placed, key=lambda member: member[0]))


def plot(axes: Axes, series: Sequence[Series], x_text: Callable[[float], str] = "{:g}".format) -> list[Point]:
    """Draw lines with markers and 95 % intervals beside each other, and return the points that can be hovered over."""
    points = []
    for index, one in enumerate(series):
        if not one.members:
            continue
        scale = quantity(one.members[0][1].metric).scale
        aside = _BESIDE * (index - (len(series) - 1) / 2)
        xs = [x for x, _ in one.members]
        ys = [s.interval.mean * scale for _, s in one.members]
        style = one.look
        drawn = axes.plot(
            xs, ys, color=style.colour, marker=style.marker, linestyle=style.dash, label=one.label, markeredgewidth=0
        )
        whiskers = [(x, s.interval) for x, s in one.members if s.interval.half_width is not None]
        # One path with gaps is a tenth of the size of one path per whisker.
        bars_x = [v for x, _ in whiskers for v in (x, x, float("nan"))]
        ends = [(i.mean - (i.half_width or 0), i.mean + (i.half_width or 0)) for _, i in whiskers]
        bars_y = [v for low, high in ends for v in (low * scale, high * scale, float("nan"))]
        drawn += axes.plot(bars_x, bars_y, color=style.colour, linewidth=0.9, scalex=False)
        place = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
        for line in drawn:  # now that the axes have taken their limits from the data
            line.set_transform(place)
        points += [
            Point(axes, x, y, f"{one.label}, {x_text(x)}: {format_mean_ci(s)}", aside)
            for (x, s), y in zip(one.members, ys, strict=True)
        ]
    return points


def format_mean_ci(summary: Summary) -> str:
    """A summary as `86.97 ± 0.59 % (n = 3)`."""
    return f"{interval_text(summary.metric, summary.interval)} (n = {summary.interval.n})"


def described(series: Sequence[Series], x_text: Callable[[float], str]) -> str:
    """Each series by its ends, for readers who cannot see the figure."""
    parts = []
    for one in series:
        if not one.members:
            continue
        (first_x, first), (last_x, last) = one.members[0], one.members[-1]
        text = f"{one.label}: {format_mean_ci(first)} at {x_text(first_x)}"
        parts.append(text if first is last else f"{text}, {format_mean_ci(last)} at {x_text(last_x)}")
    return "; ".join(parts) + "."


def short_keys(keys: Iterable[str]) -> str:
    """Task keys by their first digits; of many only the first three; the rest is in the tables beside the page."""
    short = [key[:KEY_DIGITS] for key in keys]
    return " ".join(short if len(short) <= 6 else [*short[:3], f"and {len(short) - 3} more"])


def numbers(series: Sequence[Series], titles: tuple[str, str], x_text: Callable[[float], str]) -> Grid:
    """The table of what some series draw; titles of the series' and of the x column."""
    metrics = list(dict.fromkeys(s.metric for one in series for _, s in one.members))
    value = quantity(metrics[0]).label if len(metrics) == 1 else "value"
    rows = [
        (one.label, x_text(x), interval_text(s.metric, s.interval), str(s.interval.n), short_keys(s.keys))
        for one in series
        for x, s in one.members
    ]
    return Grid((*titles, value, "n", "tasks"), rows)
