"""Frozen features: the accuracy of linear probes on untrained networks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lthbench.analysis.figures.drawing import Drawing, Grid, Point, format_mean_ci, short_keys
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import legend, panels
from lthbench.analysis.quantity import interval_text
from lthbench.experiments.generalisation import FrozenFeatures

_PROBE = re.compile(r"probe of (?P<network>.+), (?P<rule>\S+)")


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, experiment in measured.made(FrozenFeatures):
        for rule in experiment.normalisation:
            yield from _of_rule(measured, label, rule)


def _of_rule(measured: Measured, label: str, rule: str) -> Iterator[Drawing]:
    found = []
    for s in measured.of(label, "test_accuracy"):
        match = _PROBE.fullmatch(s.variant)
        if match and match["rule"] == rule:
            found.append((match["network"], s))
    if not found:
        return
    networks = list(dict.fromkeys(network for network, _ in found))
    levels = sorted({s.level or 0 for _, s in found})
    arms = measured.arms(label)
    figure, axes = panels(len(levels), height=0.7 + 0.26 * len(networks))
    points: list[Point] = []
    for level, ax in zip(levels, axes, strict=True):
        for index, arm in enumerate(arms):
            style = measured.look(arm)
            offset = 0.16 * (index - (len(arms) - 1) / 2)
            mine = [(networks.index(n) + offset, s) for n, s in found if s.arm == arm and s.level == level]
            means = [100 * s.interval.mean for _, s in mine]
            ax.plot(
                means, [y for y, _ in mine],
                color=style.colour, marker=style.marker, linestyle="none", markeredgewidth=0, label=arm,
            )  # fmt: skip
            ends = [(i.mean - i.half_width, i.mean + i.half_width) if i.half_width else (float("nan"),) * 2
                    for i in (s.interval for _, s in mine)]  # fmt: skip
            bars_x = [100 * v for low, high in ends for v in (low, high, float("nan"))]
            ax.plot(bars_x, [y for y, _ in mine for _ in range(3)], color=style.colour, linewidth=0.9)
            points += [
                Point(ax, x, y, f"{networks[round(y)]} of {arm}, level {level}: {format_mean_ci(s)}")
                for x, (y, s) in zip(means, mine, strict=True)
            ]
        ax.grid(axis="x", visible=True)
        ax.set_yticks(range(len(networks)), networks)
        ax.set_ylim(len(networks) - 0.5, -0.5)
        ax.set_title(f"level {level}")
    axes[-1].set_xlabel("test accuracy of the probe (%)")
    legend(figure, axes[0], columns=3)
    caption = (
        "Test accuracy of a linear probe on untrained networks: the ticket (mask and initial weights), and what it is "
        f"compared with. Normalisation: {rule}."
    )
    rows = [
        (n, s.arm, str(s.level), interval_text(s.metric, s.interval), str(s.interval.n), short_keys(s.keys))
        for n, s in found
    ]
    text = "; ".join(f"{n} of {s.arm}, level {s.level}: {format_mean_ci(s)}" for n, s in found)
    yield Drawing(
        f"probes-{label}-{rule}",
        f"Frozen features, normalisation {rule}",
        caption,
        figure,
        f"{caption} {text}.",
        Grid(("network", "arm", "level", "test accuracy", "n", "tasks"), rows),
        tuple(points),
    )
