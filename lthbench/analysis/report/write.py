"""Writing a report: the page, the tables as CSV and LaTeX, and on request every figure as PDF, SVG and PNG."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path

from lthbench.analysis.claims.judge import level_of
from lthbench.analysis.claims.looks import record_looks
from lthbench.analysis.figures.drawing import Grid
from lthbench.analysis.report import verdict_table
from lthbench.analysis.report.contents import Contents, gather
from lthbench.analysis.report.latex import latex_table
from lthbench.analysis.report.page import render, slug
from lthbench.analysis.report.svg import save
from lthbench.analysis.table import ResultRow
from lthbench.plain import csv_cell
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store, StoreError
from lthbench.tasks.tensor_files import write_atomically

PAGE = "index.html"


def write_report(plan: Plan, store: Store, folder: Path, suite: Path, formats: tuple[str, ...] = ()) -> Path:
    """Write the report of a plan and return the path of its page.

    Args:
        folder: made where it is missing.
        suite: the suite's path as the user names it.
        formats: in which figures are also written as files.
    """
    contents = gather(plan, store, suite)
    tables = folder / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    for name, content in _csv_files(contents):
        write_atomically(tables / name, content.encode())
    for name, grid, caption in latex_grids(contents):
        write_atomically(tables / f"{name}.tex", latex_table(grid, caption, name).encode())
    if formats:
        (folder / "figures").mkdir(exist_ok=True)
        for section in contents.sections:
            for drawing in (drawing for drawing in section.drawings if not drawing.is_table):
                save(drawing, folder / "figures" / slug(section.name, drawing.name), formats)
    page = folder / PAGE
    write_atomically(page, render(contents, str(suite), str(store.root), formats).encode())
    with suppress(StoreError):  # a store that is read-only here keeps no record of who reads its reports
        record_looks(store, contents.verdicts, level_of(plan.suite))
    return page


def _csv_files(contents: Contents) -> Iterator[tuple[str, str]]:
    yield (
        "numbers.csv",
        _csv([f.name for f in fields(ResultRow)], [list(asdict(row).values()) for row in contents.rows]),
    )
    columns = ["pair", "experiment", "arm", "variant", "level", "density", "step", "epoch", "share", "metric"]
    lines = [
        [*(getattr(s, c) for c in columns), s.interval.mean, s.interval.half_width, s.interval.n, " ".join(s.keys)]
        for s in contents.summaries
    ]
    yield "summary.csv", _csv([*columns, "mean", "half_width", "n", "tasks"], lines)
    if contents.verdicts:
        for name, grid in (
            ("verdicts.csv", verdict_table.lines(contents.verdicts)),
            ("tests.csv", verdict_table.tests(contents.verdicts)),
        ):
            yield name, _csv(list(grid.columns), [list(row) for row in grid.rows])


def _csv(columns: list[str], rows: list[list[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([csv_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def latex_grids(contents: Contents) -> Iterator[tuple[str, Grid, str]]:
    """The tables for a paper: name, content, caption."""
    note = "Mean over replicates with the half width of its 95 % interval (Student's t)."
    yield "overview", contents.overview, f"{contents.suite.title}. {note}"
    if contents.verdicts:
        found = verdict_table.lines(contents.verdicts)
        yield "verdicts", Grid(found.columns[:8], [row[:8] for row in found.rows]), "Verdicts on the claims."
    for section in contents.sections:
        yield slug(section.name, "recipes"), section.recipes, f"Recipes of {section.name}."
        for drawing in section.drawings:
            keep = [i for i, column in enumerate(drawing.numbers.columns) if column != "tasks"]
            rows = [tuple(row[i] for i in keep) for row in drawing.numbers.rows]
            grid = Grid(tuple(drawing.numbers.columns[i] for i in keep), rows)
            yield slug(section.name, drawing.name), grid, f"{section.name}. {drawing.title}. {note}"
