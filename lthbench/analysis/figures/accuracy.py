"""Accuracy against density: the tickets of all arms; and for each arm its tickets beside their controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

from lthbench.analysis.figures.drawing import Drawing, Series, by_x, described, format_mean_ci, numbers, plot
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import MUTED, legend, look, panels
from lthbench.analysis.table import Summary
from lthbench.experiments.controls import Controls, CrossedMasks
from lthbench.experiments.experiment import Experiment
from lthbench.experiments.imp import Imp, LearningRateRewinding

METRIC = "test_accuracy"
BESIDE: tuple[type[Experiment], ...] = (Imp, Controls, CrossedMasks, LearningRateRewinding)


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, experiment in measured.made(Imp):
        tickets = {arm: _tickets(measured, label, arm) for arm in measured.arms(label)}
        series = [by_x(arm, measured.look(arm), members, lambda s: s.density) for arm, members in tickets.items()]
        rewound = "" if str(experiment.rewind) == "0it" else f", rewound to {experiment.rewind}"
        yield _drawing(
            f"accuracy-{label}",
            f"Tickets of all arms{rewound}",
            "Test accuracy of the trained tickets against density; level 0 is the dense network.",
            series,
            None,
        )
    plain = next((label for label, e in measured.made(Imp) if str(e.rewind) == "0it"), None)
    for arm in measured.pair.arms:
        series = [] if plain is None else [
            by_x("ticket", look(0), _tickets(measured, plain, arm), lambda s: s.density)
        ]  # fmt: skip
        series += list(_beside(measured, arm, plain))
        if len(series) > 1:
            dense = next((s for s in _tickets(measured, plain or "", arm) if s.level == 0), None)
            yield _drawing(
                f"controls-{arm}",
                f"{arm}: tickets and their controls",
                "Test accuracy against density of the tickets and of what they are compared with. A ticket wins only "
                "if it also beats the reinitialisation on its mask.",
                series,
                dense,
            )


def _tickets(measured: Measured, label: str, arm: str) -> list[Summary]:
    return [s for s in measured.of(label, METRIC, arm) if s.variant in ("ticket", "dense")]


def _beside(measured: Measured, arm: str, plain: str | None) -> Iterator[Series]:
    """Everything else that has an accuracy at a density: controls, other arms' masks, rewound tickets."""
    index = 1
    for kind in BESIDE:
        for label, _ in measured.made(kind):
            if label == plain:
                continue
            members = measured.of(label, METRIC, arm)
            steps = {s.step for s in members if s.step}
            for variant in dict.fromkeys(s.variant for s in members):
                if variant == "dense":
                    continue
                name = f"{variant}, {label}" if steps else variant
                found = [s for s in members if s.variant == variant]
                yield by_x(name, look(index), found, lambda s: s.density)
                index += 1


def _drawing(name: str, title: str, caption: str, series: Sequence[Series], dense: Summary | None) -> Drawing:
    figure, (axes,) = panels()
    if dense is not None:
        axes.axhline(dense.interval.mean * 100, color=MUTED, linewidth=1, linestyle=(0, (1, 1.5)), label="dense")
        caption += f" The dotted line is the dense network, {format_mean_ci(dense)}."
    points = plot(axes, series, density_text)
    density_axis(axes, series)
    axes.set_ylabel("test accuracy (%)")
    legend(figure, axes)
    described_as = described([Series(s.label, s.look, s.members[::-1]) for s in series], density_text)
    table = numbers(series, ("network", "density"), density_text)
    return Drawing(name, title, caption, figure, f"{caption} {described_as}", table, tuple(points))


def density_text(density: float) -> str:
    return f"{100 * density:.3g} %"


def density_axis(axes: Axes, series: Sequence[Series]) -> None:
    """A logarithmic axis from dense to sparse, with a tick at every measured density, some of them named."""
    found = sorted({x for one in series for x, _ in one.members}, reverse=True)
    axes.set_xscale("log")
    axes.minorticks_off()
    named = set(found[:: max(1, -(-len(found) // 7))])
    names = {d: f"{100 * d:.3g}" for d in named}
    axes.set_xticks(found, [names.get(d, "") for d in found])
    axes.invert_xaxis()
    axes.set_xlabel("density (% of the prunable weights)")
