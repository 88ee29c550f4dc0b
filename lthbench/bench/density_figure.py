"""The figure of `lthbench bench engine`: time against density, beside the dense line and where they cross."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from lthbench.analysis.figures.style import INK, MUTED, figure_style, log_axis, look, panels
from lthbench.bench.engine_speed import EnginePoint, crossover
from lthbench.tasks.atomic import write_atomically


def draw_densities(works: Sequence[Sequence[EnginePoint]], machine: str, path: Path) -> None:
    """Draw and write a panel for each network and work; those that the blocked engine does not apply to have none.

    Args:
        works: points of one network and work each, densities descending.
        machine: what they were measured on, for the title.
        path: ending in .png, .svg or .pdf.

    Raises:
        OSError: the file cannot be written.
    """
    drawn = [points for points in works if len(points) > 1 and points[0].blocked_ms is not None]
    with figure_style():
        figure, axes = panels(max(1, len(drawn)), height=2.1)
        for ax, points in zip(axes, drawn, strict=False):
            densities = [100 * point.density for point in points]
            times = [point.blocked_ms or 0.0 for point in points]
            dense, line = points[0].torch_ms, look(0)
            ax.plot(densities, times, color=line.colour, marker=line.marker, clip_on=False, label="blocked engine")
            ax.axhline(dense, color=INK, dashes=(5, 2), label="torch, dense")
            for x, y, point in zip(densities, times, points, strict=True):
                ax.annotate(
                    f"{point.ratio:.2g}x",
                    (x, y),
                    (0, -5),
                    textcoords="offset points",
                    ha="center",
                    va="top",
                    fontsize=7,
                )
            below = crossover(points)
            if below is not None and below < 1:
                ax.axvline(100 * below, color=MUTED, dashes=(1.5, 1.5), label="equally fast")
            log_axis(ax, "x", densities)
            ax.invert_xaxis()
            ax.set_ylim(0, 1.15 * max(dense, *times))
            ax.set_ylabel("ms")
            work = f"{points[0].work}, batch of {points[0].batch}"
            ax.set_title(f"{points[0].network}:{' ' if len(points[0].network) < 16 else chr(10)}{work}")
        axes[-1].set_xlabel("density (% of the weights between the first and the last layer)")
        lines = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.legend(lines.values(), lines.keys(), loc="outside upper left", ncols=3, title=machine, alignment="left")
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix[1:], dpi=150)
    write_atomically(path, content.getvalue())
