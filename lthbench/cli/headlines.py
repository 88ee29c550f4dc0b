"""The short table of a pair: of what matters a line, and a column for each arm."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from lthbench.cli.app import out
from lthbench.suite.schema import Pair, Suite

if TYPE_CHECKING:
    from lthbench.analysis.table import ResultRow, Summary

_WIDTH_OF_ARM = 18
_WIDTH_OF_LABEL = 30


def print_headlines(
    suite: Suite,
    rows: Sequence[ResultRow],
    pairs: Collection[str] | None = None,
    console: Console = out,
    *,
    so_far: bool = False,
) -> None:
    """A table for each pair; where its arms do not fit beside each other, several below each other.

    Args:
        pairs: of these alone; None is all.
        so_far: whether more replicates are to come.
    """
    from lthbench.analysis.table import summarise

    summaries = summarise(rows)
    fit = max(1, (console.width - _WIDTH_OF_LABEL - 4) // (_WIDTH_OF_ARM + 3))
    is_any = False
    for name, pair in suite.pairs.items():
        if pairs is not None and name not in pairs:
            continue
        lines = _lines(pair, [s for s in summaries if s.pair == name])
        arms = [arm for arm in pair.arms if any(arm in cells for cells in lines.values())]
        for first in range(0, len(arms), fit):
            is_any = True
            shown = arms[first : first + fit]
            table = Table(title=f"{name}{': the first of its tickets' if so_far else ''}")
            table.add_column("")
            for arm in shown:
                table.add_column(arm, justify="right")
            for label, cells in lines.items():
                if any(arm in cells for arm in shown):
                    table.add_row(label, *(cells.get(arm, "") for arm in shown))
            console.print(table)
    if is_any and not so_far:
        console.print("Mean over replicates with the half width of its 95 % interval (Student's t).")


def _lines(pair: Pair, summaries: Sequence[Summary]) -> dict[str, dict[str, str]]:
    """Label of a line -> arm -> what was measured, at the last level in the `range` of the pair's claim levels."""
    from lthbench.analysis.quantity import interval_text

    tested = pair.claim_levels["range"]
    lines: dict[str, dict[str, str]] = {}
    for label, experiment in pair.experiments.items():
        is_second = _is_second(pair, label)
        for variant, metric, title in experiment.headlines:
            found = [s for s in summaries if (s.experiment, s.variant, s.metric) == (label, variant, metric)]
            levels = sorted({s.level for s in found if s.level is not None})
            level = max((level for level in levels if level in tested), default=max(levels, default=None))
            first = min((s.step or 0 for s in found if s.level == level), default=0)
            for s in found:
                if s.level == level and (s.step or 0) == first and not (is_second and not level):
                    at = f" at {100 * s.density:.3g} % of the weights" if level and s.density is not None else ""
                    which = f" ({label})" if is_second else ""
                    cells = lines.setdefault(f"{title}{at}{which}", {})
                    n = "" if s.interval.n > 1 else " (n = 1)"
                    cells.setdefault(s.arm, interval_text(metric, s.interval) + n)
    return lines


def _is_second(pair: Pair, label: str) -> bool:
    """Whether another experiment of the same kind stands before this one."""
    kind = type(pair.experiments[label])
    return next(name for name, one in pair.experiments.items() if type(one) is kind) != label
