"""Few-shot learning: accuracy against the number of images of each class."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lthbench.analysis.figures.drawing import Drawing, by_x, described, numbers, plot
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import DASHES, Look, legend, log_axis, panels
from lthbench.experiments.generalisation import FewShot

_SHOTS = re.compile(r"(?P<network>.+), (?P<count>\d+) per class(?: of .+)?")


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, experiment in measured.made(FewShot):
        for level in experiment.levels:
            series = []
            for arm in measured.arms(label):
                members = [s for s in measured.of(label, "test_accuracy", arm) if s.level == level]
                for index, network in enumerate(dict.fromkeys(_read(s.variant)[0] for s in members)):
                    style = measured.look(arm)
                    found = [s for s in members if _read(s.variant)[0] == network]
                    named = Look(style.colour, style.marker, DASHES[index % len(DASHES)])
                    series.append(by_x(f"{arm}, {network}", named, found, lambda s: _read(s.variant)[1]))
            series = [one for one in series if one.members]
            if not series:
                continue
            figure, (axes,) = panels()
            points = plot(axes, series, "{:g} per class".format)
            log_axis(axes, "x", (x for one in series for x, _ in one.members))
            axes.set_xlabel("images of each class")
            axes.set_ylabel("test accuracy (%)")
            legend(figure, axes)
            on = f" of {experiment.target.title}" if experiment.target else ""
            caption = (
                f"Test accuracy of networks trained on n images of each class{on}; the masks (level {level}) were "
                f"found with all images. {experiment.draws} draws of images of each replicate, which count once."
            )
            yield Drawing(
                f"few-shot-{label}-level-{level}",
                f"Few-shot learning{on}, level {level}",
                caption,
                figure,
                f"{caption} {described(series, '{:g} per class'.format)}",
                numbers(series, ("network", "images of a class"), "{:g}".format),
                tuple(points),
            )


def _read(variant: str) -> tuple[str, float | None]:
    match = _SHOTS.fullmatch(variant)
    return (match["network"], float(match["count"])) if match else ("", None)
