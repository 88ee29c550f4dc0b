"""The transfer matrix: networks of each arm by target data set and way of using them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from matplotlib.patches import Rectangle

from lthbench.analysis.figures.drawing import Drawing, Grid, Point, format_mean_ci, short_keys
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import INK, LIGHT, MUTED, panels
from lthbench.analysis.quantity import interval_text
from lthbench.experiments.generalisation import Transfer

_MOVED = re.compile(r"(?P<way>train|probe) (?P<network>.+?) on (?P<target>.+)")


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, experiment in measured.made(Transfer):
        for level in experiment.levels:
            found = {}
            for s in measured.of(label, "test_accuracy"):
                match = _MOVED.fullmatch(s.variant)
                if match and s.level == level:
                    column = (match["target"], match["way"])
                    found[(s.arm, match["network"]), column] = s
            if not found:
                continue
            lines = sorted(
                dict.fromkeys(line for line, _ in found), key=lambda line: list(measured.pair.arms).index(line[0])
            )
            columns = sorted({column for _, column in found})
            figure, (axes,) = panels(height=1.3 + 0.3 * len(lines))
            points: list[Point] = []
            for x, column in enumerate(columns):
                of_column = [s.interval.mean for (_, c), s in found.items() if c == column]
                low, high = min(of_column), max(of_column)
                for y, line in enumerate(lines):
                    if (line, column) not in found:
                        continue
                    s = found[line, column]
                    # Shaded by its rank within the target: accuracies of different targets do not compare.
                    part = (s.interval.mean - low) / (high - low) if high > low else 0.0
                    axes.add_patch(Rectangle((x - 0.49, y - 0.47), 0.98, 0.94, color=LIGHT[0], alpha=0.38 * part, lw=0))
                    axes.text(x, y, f"{100 * s.interval.mean:.1f}", ha="center", va="center", fontsize=8)
                    points.append(
                        Point(axes, x, y, f"{' '.join(line)}, {column[1]} on {column[0]}: {format_mean_ci(s)}")
                    )
            axes.set_xlim(-0.5, len(columns) - 0.5)
            axes.set_ylim(len(lines) - 0.5, -0.5)
            names = [f"{way}, {target}" for target, way in columns]
            axes.set_xticks(range(len(columns)), names, rotation=25, ha="right", rotation_mode="anchor")
            axes.set_yticks(range(len(lines)), [f"{arm}, {network}" for arm, network in lines])
            axes.grid(visible=False)
            axes.tick_params(length=0, color=MUTED, labelcolor=INK)
            for spine in axes.spines.values():
                spine.set_visible(False)
            caption = (
                f"Test accuracy in percent of networks moved to other data sets with a new output layer (masks of "
                f"level {level}): trained in full, or only probed. Darker is better within a column."
            )
            rows = [
                (arm, network, target, way, interval_text(s.metric, s.interval), str(s.interval.n), short_keys(s.keys))
                for ((arm, network), (target, way)), s in found.items()
            ]
            text = "; ".join(f"{r[0]} {r[1]}, {r[3]} on {r[2]}: {r[4]} (n = {r[5]})" for r in rows)
            yield Drawing(
                f"transfer-{label}-level-{level}",
                f"Transfer, level {level}",
                caption,
                figure,
                f"{caption} {text}.",
                Grid(("arm", "network", "target", "way", "test accuracy", "n", "tasks"), rows),
                tuple(points),
            )
