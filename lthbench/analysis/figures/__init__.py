"""The figures of a report, a file per family: from the numbers of one pair to matplotlib figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from lthbench.analysis.figures import (
    accuracy,
    barriers,
    budget,
    convergence,
    distance,
    distance_detail,
    few_shot,
    onset,
    probes,
    proxies,
    regulariser,
    training_time,
    transfer,
)
from lthbench.analysis.figures.drawing import Drawing
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import figure_style

FAMILIES = (
    accuracy,
    barriers,
    onset,
    proxies,
    distance,
    distance_detail,
    regulariser,
    budget,
    probes,
    few_shot,
    transfer,
    convergence,
    training_time,
)


def draw_figures(measured: Measured) -> Iterator[Drawing]:
    """All figures of a pair for which there are numbers; of those with one title, each names its experiment too."""
    for family in FAMILIES:
        with figure_style():
            drawings = list(family.draw(measured))
        titles = Counter(drawing.title for drawing in drawings)
        for drawing in drawings:
            of = next((label for label in measured.pair.experiments if drawing.name.endswith(f"-{label}")), None)
            is_shared = titles[drawing.title] > 1 and of is not None
            yield replace(drawing, title=f"{drawing.title} ({of})") if is_shared else drawing


__all__ = ["Drawing", "Measured", "draw_figures"]
