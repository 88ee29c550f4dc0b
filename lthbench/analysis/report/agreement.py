"""Whether results agree with the golden ones of their suite and with numbers of other papers, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lthbench.analysis.figures.drawing import Grid, short_keys
from lthbench.analysis.golden.compare import compare
from lthbench.analysis.golden.files import Comparison, golden_folder, read_golden
from lthbench.analysis.published import PublishedComparison, calibrate, read_references
from lthbench.analysis.quantity import p_text
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store

_SHOWN = 50


def golden_comparisons(plan: Plan, store: Store, suite: Path) -> list[Comparison]:
    """The comparisons with the golden files beside a suite; none where it has no golden files."""
    goldens = read_golden(golden_folder(suite, plan.suite.other_engine))
    return compare(plan, store, goldens) if goldens else []


def comparisons_table(comparisons: Sequence[Comparison]) -> Grid:
    """One line per comparison."""
    columns = ("comparison", "outcome", "what was found", "tasks compared", "golden files")
    return Grid(
        columns,
        [
            (c.kind, c.state, c.reason, f"{c.num_compared:,} of {c.num_tasks:,}", ", ".join(p.name for p in c.files))
            for c in comparisons
        ],
    )


def differences_table(comparisons: Sequence[Comparison]) -> Grid:
    """The first differences of each comparison, in the plan's order."""
    rows = [
        (c.kind, d.task, d.what, _value(d.recorded), _value(d.found), _value(d.tolerance), p_text(d.p),
         short_keys([d.key]))
        for c in comparisons
        for d in c.differences[:_SHOWN]
    ]  # fmt: skip
    return Grid(("comparison", "task", "what", "recorded", "found", "tolerance", "p", "key"), rows)


def published(plan: Plan, store: Store, suite: Path) -> list[PublishedComparison]:
    """Numbers of other papers to compare results with; none without a file of them."""
    path = golden_folder(suite).parent / "references.yaml"
    if not path.exists():
        return []
    return [found for found in calibrate(plan, store, read_references(path)) if found.our_mean is not None]


def published_table(rows: Sequence[PublishedComparison]) -> Grid:
    """Each published number beside ours, with its source."""
    columns = ("pair", "arm", "network", "level", "published", "ours", "ours minus theirs, 95 %", "p", "outcome",
               "source")  # fmt: skip
    return Grid(
        columns,
        [
            (
                found.row.pair, found.row.arm, found.row.variant, str(found.level),
                _spread(found.mean, found.deviation, found.n),
                _spread(found.our_mean, found.our_deviation, found.our_n),
                "" if found.low is None or found.high is None else f"{found.low:+.2f} to {found.high:+.2f}",
                p_text(found.p), found.state, found.row.source,
            )
            for found in rows
        ],
    )  # fmt: skip


def sources(rows: Sequence[PublishedComparison]) -> list[tuple[str, str]]:
    """The name of each source, with what it is, whether it was peer reviewed, and how its setting differs from ours."""
    told: dict[str, str] = {}
    for found in rows:
        of_source = [other.row.differs for other in rows if other.row.source == found.row.source]
        differs = "; ".join(dict.fromkeys(filter(None, of_source))) or "nothing known"
        reviewed = "" if found.source.peer_reviewed else ", not peer reviewed"
        told[found.row.source] = f"{found.source.cite}{reviewed}. Not as here: {differs}."
    return list(told.items())


def _value(value: float | str | None) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


def _spread(mean: float | None, deviation: float | None, n: int | None) -> str:
    if mean is None:
        return ""
    number = f"{mean:g}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"
    return number if n is None else f"{number} (n = {n})"
