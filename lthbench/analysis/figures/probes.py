"""Frozen features: the accuracy of linear probes on untrained networks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lthbench.analysis.figures.drawing import Drawing, Grid, Point, Series, plot, short_keys, told
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import Look, legend, panels
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
    figure, axes = panels(len(levels), height=2.4 if len(levels) > 1 else 3)
    points: list[Point] = []
    for level, ax in zip(levels, axes, strict=True):
        series = []
        for index, arm in enumerate(arms):
            style = measured.look(arm)
            offset = 0.14 * (index - (len(arms) - 1) / 2)
            series.append(
                Series(
                    arm,
                    Look(style.colour, style.marker, "none"),
                    [(networks.index(n) + offset, s) for n, s in found if s.arm == arm and s.level == level],
                )
            )
        points += plot(ax, series, lambda x: networks[round(x)])
        ax.set_xticks(range(len(networks)), [re.sub(r"-|(?<=\w) ", "\n", n) for n in networks])
        ax.set_xlim(-0.5, len(networks) - 0.5)
        ax.grid(axis="x", visible=False)
        ax.set_ylabel("probe accuracy (%)")
        ax.set_title(f"level {level}")
    legend(figure, axes[0], columns=3)
    caption = (
        "Test accuracy of a linear probe on untrained networks: the ticket (mask and initial weights), and what it is "
        f"compared with. Normalisation: {rule}."
    )
    rows = [
        (n, s.arm, str(s.level), interval_text(s.metric, s.interval), str(s.interval.n), short_keys(s.keys))
        for n, s in found
    ]
    text = "; ".join(f"{n} of {s.arm}, level {s.level}: {told(s)}" for n, s in found)
    yield Drawing(
        f"probes-{label}-{rule}",
        f"Frozen features, normalisation {rule}",
        caption,
        figure,
        f"{caption} {text}.",
        Grid(("network", "arm", "level", "test accuracy", "n", "tasks"), rows),
        tuple(points),
    )
