"""The onset of stability: for each replicate of each arm the share of training in which k* lies."""

from __future__ import annotations

from collections.abc import Iterator

from lthbench.analysis.claims.evidence import ONSET_BY, OnsetInterval, onset_interval
from lthbench.analysis.figures.drawing import Drawing, Grid, Point, short_keys
from lthbench.analysis.figures.measured import Measured
from lthbench.analysis.figures.style import log_axis, panels
from lthbench.analysis.table import ResultRow
from lthbench.experiments.stability import Onset


def draw(measured: Measured) -> Iterator[Drawing]:
    for label, onset in measured.made(Onset):
        for variant in dict.fromkeys(s.variant for s in measured.of(label, "onset_above")):
            yield _drawing(measured, label, onset, variant)


def _drawing(measured: Measured, label: str, onset: Onset, variant: str) -> Drawing:
    found: dict[str, dict[int, list[ResultRow]]] = {}
    known = {(r.arm, r.replicate) for r in measured.rows if (r.experiment, r.variant) == (label, variant)}
    for row in measured.rows:
        of = (row.experiment, row.variant, row.metric)
        if of == (label, variant.replace("onset", "barrier", 1), ONSET_BY) and (row.arm, row.replicate) in known:
            found.setdefault(row.arm, {}).setdefault(row.replicate, []).append(row)
    figure, (axes,) = panels(height=0.9 + 0.28 * sum(len(r) for r in found.values()))
    points: list[Point] = []
    rows, texts, ticks, y = [], [], [], 0.0
    shares: set[float] = set()
    for arm, replicates in found.items():
        style = measured.look(arm)
        begin = y
        for replicate, barriers in sorted(replicates.items()):
            heights: dict[float, list[float]] = {}
            steps: dict[float, int] = {}
            for row in barriers:
                heights.setdefault(row.share or 0.0, []).append(row.value)
                steps[row.share or 0.0] = row.step or 0
            means = {share: sum(of) / len(of) for share, of in sorted(heights.items())}
            shares |= means.keys()
            lies = onset_interval(means, onset.threshold)
            left, right = 100 * max(lies.low, 0.0), 100 * lies.high
            axes.plot([left, right], [y, y], color=style.colour, linewidth=2.2, solid_capstyle="butt",
                      linestyle="-" if lies.is_monotone else (0, (1, 1)))  # fmt: skip
            axes.plot([right], [y], color=style.colour, marker=style.marker if lies.high in means else ">")
            text = _text(lies, steps, "".join("S" if h < onset.threshold else "U" for h in means.values()))
            points.append(Point(axes, right, y, f"{arm}, replicate {replicate}: {text}"))
            rows.append((arm, str(replicate), text, short_keys(sorted({row.key for row in barriers}))))
            y -= 1
        ticks.append(((begin + y + 1) / 2, arm))
        texts.append(f"{arm}: " + ", ".join(r[2] for r in rows if r[0] == arm) + f" (n = {len(replicates)})")
        y -= 0.5
    marks = {100 * share for share in shares}
    smallest = min((mark for mark in marks if mark), default=1.0)
    log_axis(axes, "x", marks, smallest=smallest)
    axes.set_xlim(left=-0.02 * smallest)
    axes.set_yticks([at for at, _ in ticks], [arm for _, arm in ticks])
    axes.set_xlabel("share of training after which children are spawned (%)")
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    caption = (
        f"Onset of stability k*: the first step of the grid {', '.join(map(str, onset.grid))} from which on children "
        f"have a barrier on validation images under {100 * onset.threshold:g} %, as a share of each arm's training. "
        "A bar is one replicate: k* lies after its left end and at or before its marker; an arrow says that no step "
        "measured was stable, a dotted bar that stability is not monotone (S stable, U not, in the order of the steps)."
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


def _text(lies: OnsetInterval, steps: dict[float, int], pattern: str) -> str:
    """Where an onset lies, in percent of training, with the iterations beside."""

    def at(share: float) -> str:
        return f"{100 * share:.3g} %" + (f" ({steps[share]:,} it)" if share in steps else "")

    if not lies.is_monotone:
        return f"not monotone ({pattern}): between {at(max(lies.low, 0.0))} and {at(lies.high)}"
    if lies.high not in steps:
        return f"after {at(lies.low)}"
    return (
        f"at most {at(lies.high)}"
        if lies.low < 0 and lies.high
        else (at(lies.high) if lies.low < 0 else f"after {at(lies.low)}, at most {at(lies.high)}")
    )
