"""The style of figures: one palette in a light and a dark form, with marker and dash for readers who see no colour.

Hues follow Okabe and Ito (2008), which the colour-blind can distinguish; both forms have a contrast to their background
of at least 3 to 1 (WCAG 2.2, 1.4.11).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

INK, MUTED, GRID = "#1f2328", "#59636e", "#d8dee4"
LIGHT = ("#0072b2", "#c65200", "#007f5f", "#a8487f", "#8a6100", "#4d4d4d", "#6a4ca0", "#a3333d")
DARK = ("#56b4e9", "#ff9140", "#2ec99b", "#e79ac6", "#f0b429", "#c9c9c9", "#b9a3e8", "#ff8f98")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.2, 1.5)))

# Colours as drawn -> (name of the page's variable, colour on a dark background).
VARIABLES = {
    INK: ("ink", "#e6e8eb"),
    MUTED: ("muted", "#a3adb8"),
    GRID: ("grid", "#363d45"),
    **{light: (f"series-{i}", dark) for i, (light, dark) in enumerate(zip(LIGHT, DARK, strict=True))},
}

FONTS = ["DejaVu Sans"]
_RC: dict[str, Any] = {
    "font.family": FONTS,
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "ytick.left": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.2,
    "figure.dpi": 72,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "lthbench",
}
WIDTH, HEIGHT = 4.8, 3.5  # inches: two beside each other on a wide page, one on a telephone


@dataclass(frozen=True)
class Look:
    """Colour, marker and dash of one line."""

    colour: str
    marker: str
    dash: Any


def look(index: int, dash: int | None = None) -> Look:
    """The look of the index-th line; colours and markers repeat after eight, with another dash."""
    which = index % len(LIGHT)
    return Look(LIGHT[which], MARKERS[which], DASHES[(index if dash is None else dash) % len(DASHES)])


@contextmanager
def figure_style() -> Iterator[None]:
    """Within it figures are drawn and saved independently of the user's matplotlib settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)  # type: ignore[arg-type]
        yield


def panels(count: int = 1, height: float = HEIGHT) -> tuple[Figure, list[Axes]]:
    """A figure of panels below each other."""
    figure = Figure(figsize=(WIDTH, height * count), layout="constrained")
    return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])


def log_axis(axes: Axes, which: Literal["x", "y"], ticks: Iterable[float], smallest: float | None = None) -> None:
    """A logarithmic axis with plain numbers at the ticks; linear below `smallest`, for axes that have a 0."""
    axis, set_scale = (axes.xaxis, axes.set_xscale) if which == "x" else (axes.yaxis, axes.set_yscale)
    if smallest is None:
        set_scale("log")
    else:
        set_scale("symlog", linthresh=smallest)
    axis.set_minor_locator(NullLocator())
    places = sorted(set(ticks))
    axis.set_ticks(places[:: max(1, -(-len(places) // 9))])
    axis.set_major_formatter(lambda value, _: f"{value:.3g}" if abs(value) < 1000 else f"{value:g}")


def legend(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """A legend above the panels, of what one of them shows."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max((len(text) for text in labels), default=0)
    figure.legend(handles, labels, loc="outside upper left", ncols=1 if longest > 34 else columns, columnspacing=1.2)
