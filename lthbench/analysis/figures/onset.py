"""The onset of stability: for each replicate of each arm the interval that holds k*."""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.analysis.figures.drawing import Drawing, Grid, Point, short_keys
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import log_axis, panels
from lthbench.analysis.table import Row
from lthbench.experiments.stability import Onset


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, onset in measured.made(Onset):
        for variant in dict.fromkeys(s.variant for s in measured.of(label, "onset_above")):
            yield _drawing(measured, label, onset, variant)


def _drawing(measured: Measured, label: str, onset: Onset, variant: str) -> Drawing:
    found: dict[str, dict[int, dict[str, Row]]] = {}
    for row in measured.rows:
        if (row.experiment, row.variant) == (label, variant) and row.metric in ("onset", "onset_above"):
            found.setdefault(row.arm, {}).setdefault(row.replicate, {})[row.metric] = row
    figure, (axes,) = panels(height=0.9 + 0.28 * sum(len(r) for r in found.values()))
    last = float(max(s.step or 0 for s in measured.of(label, "test_barrier")) or 1)
    points: list[Point] = []
    rows, texts, ticks, y = [], [], [], 0.0
    for arm, replicates in found.items():
        style = measured.look(arm)
        begin = y
        for replicate, bounds in sorted(replicates.items()):
            above, at = _bounds(bounds)
            end = at if at is not None else 1.6 * max(last, above)
            axes.plot([max(above, 0), end], [y, y], color=style.colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot([end], [y], color=style.colour, marker=style.marker if at is not None else ">")
            text = _text(above, at)
            points.append(Point(axes, end, y, f"{arm}, replicate {replicate}: {text}"))
            rows.append((arm, str(replicate), text, short_keys(sorted({row.key for row in bounds.values()}))))
            y -= 1
        ticks.append(((begin + y + 1) / 2, arm))
        texts.append(f"{arm}: " + ", ".join(r[2] for r in rows if r[0] == arm) + f" (n = {len(replicates)})")
        y -= 0.5
    steps = {s.step or 0 for s in measured.of(label, "test_barrier")}
    smallest = float(min((step for step in steps if step), default=1))
    log_axis(axes, "x", steps, smallest=smallest)
    axes.set_xlim(left=-0.02 * smallest)
    axes.set_yticks([at for at, _ in ticks], [arm for _, arm in ticks])
    axes.set_xlabel("iteration k at which children are spawned")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    caption = (
        f"Onset of stability k*: the first step of the grid {', '.join(map(str, onset.grid))} whose children have "
        f"a barrier under {100 * onset.threshold:g} %, found by bisection. A bar is one replicate: k* lies after "
        "its left end and at or before its marker; an arrow says that no step of the grid was stable."
    )
    return Drawing(
        f"onset-{label}" + ("" if variant == "onset" else "-recomputed"),
        variant.replace("onset", "Onset of stability", 1),
        caption,
        figure,
        f"{caption} {'; '.join(texts)}.",
        Grid(("arm", "replicate", "onset k*", "tasks"), rows),
        tuple(points),
    )


def _bounds(rows: dict[str, Row]) -> tuple[float, float | None]:
    """The last unstable step (-1 for none) and the first stable one (None for none)."""
    return rows["onset_above"].value, rows["onset"].value if "onset" in rows else None


def _text(above: float, at: float | None) -> str:
    if at is None:
        return f"after {above:g} it"
    return f"{at:g} it" if above < 0 else f"in ({above:g}, {at:g}] it"
