"""`lthbench results`: the measured numbers."""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from lthbench import api
from lthbench.api import Source
from lthbench.cli.app import JsonOption, app, fail, out, print_json
from lthbench.cli.parameters import with_options
from lthbench.cli.verdicts import tell_what_computed
from lthbench.plain import csv_cell
from lthbench.suite.schema import Suite

if TYPE_CHECKING:
    from lthbench.analysis.table import ResultRow, Summary

COLLAPSE = "empty_layers"


@app.command()
@with_options
def results(
    source: Source,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Print the measured numbers: a summary, or one row per number with --json or --csv."""
    if as_json and as_csv:
        fail("--json and --csv are two forms of the same numbers; give one of them")
    opened = api.open_suite(source)
    planned = api.plan(opened)
    rows = api.result_rows(opened, planned)
    if as_json:
        print_json([asdict(row) for row in rows])
    elif as_csv:
        _print_csv(rows)
    else:
        print_summary(opened.suite, rows)
        tell_what_computed(planned, opened.store, out)


def _print_csv(rows: list[ResultRow]) -> None:
    from lthbench.analysis.table import ResultRow

    writer = csv.DictWriter(sys.stdout, fieldnames=[field.name for field in fields(ResultRow)])
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in asdict(row).items()} for row in rows)


def _line(summaries: list[Summary]) -> dict[str, str]:
    """The cells of one point: its metrics, each with its own n where some replicates have none."""
    from lthbench.analysis.quantity import interval_text

    n = max(s.interval.n for s in summaries)
    density, step, share = summaries[0].density, summaries[0].step, summaries[0].share
    cells = {"density": "" if density is None else f"{density:.4f}", "n": str(n)}
    if step is not None:
        cells["step"] = f"{step}" + (f" ({100 * share:.3g} %)" if share else "")
    for s in summaries:
        cells[s.metric] = interval_text(s.metric, s.interval) + (f" (n = {s.interval.n})" if s.interval.n < n else "")
    return cells


def print_summary(suite: Suite, rows: list[ResultRow]) -> None:
    """A table for each experiment of each pair: the means over replicates of its main metrics."""
    from lthbench.analysis.table import summarise

    summaries = summarise(rows)
    for pair_name, pair in suite.pairs.items():
        for label, experiment in pair.experiments.items():
            mine = [s for s in summaries if s.pair == pair_name and s.experiment == label]
            collapsed = any(s.metric == COLLAPSE and s.interval.mean > 0 for s in mine)
            shown = (*experiment.shown, *([COLLAPSE] if collapsed else []))
            grouped: dict[tuple[Any, ...], list[Summary]] = {}
            for s in mine:
                if s.metric in shown:
                    grouped.setdefault((s.arm, s.variant, s.level, s.step), []).append(s)
            if not grouped:
                continue
            lines = {point: _line(group) for point, group in grouped.items()}
            titles = [name.replace("_", " ") for name in shown]  # words, which can be wrapped
            table = Table(
                "arm",
                "what",
                "level",
                "step",
                "density",
                *titles,
                "n",
                title=f"{pair_name}: {label}",
            )
            arm_before = None
            for (arm, variant, level, _), line in lines.items():
                if arm_before not in (None, arm):
                    table.add_section()
                arm_before = arm
                cells = [line.get(name, "") for name in ("step", "density", *shown, "n")]
                table.add_row(
                    arm,
                    variant,
                    "" if level is None else str(level),
                    *cells,
                )
            out.print(table)
    out.print(
        "Steps are iterations, with their share of training. Mean over n replicates, with the half width of its 95 % "
        "interval (Student's t)."
    )
    if any(s.metric == COLLAPSE and s.interval.mean > 0 for s in summaries):
        out.print("An empty layer is one without a surviving weight; what is undefined of it is in no mean.")
