"""`lthbench report`: what a suite found, as a page, tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lthbench.cli.app import DEFAULT_STORE, OutsideOption, StoreOption, SuiteArgument, app, fail, open_store, out
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan


@app.command()
def report(
    suite: SuiteArgument,
    store: StoreOption = DEFAULT_STORE,
    allow_outside: OutsideOption = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Folder it is written to. Default: STORE/reports/SUITE.")
    ] = None,
    figures: Annotated[bool, typer.Option(help="Write each figure as PDF, SVG and PNG too.")] = True,
) -> None:
    """Write what a suite found as one HTML page, with tables (CSV, LaTeX) and figures (PDF, SVG, PNG) beside it."""
    from lthbench.analysis.report.svg import FORMATS
    from lthbench.analysis.report.write import write_report

    target = open_store(store)
    plan = make_plan(load_suite(suite, allow_outside=allow_outside), result_of=target.result)
    folder = folder or default_folder(suite, store)
    try:
        page = write_report(plan, target, folder, suite, FORMATS if figures else ())
    except OSError as error:
        fail(f"--out {folder}: cannot be written: {error.strerror}; give another folder")
    out.print(f"Report: {page.absolute()}")


def default_folder(suite: Path, store: Path) -> Path:
    """Where a suite's report goes if nobody says."""
    return store / "reports" / suite.stem
