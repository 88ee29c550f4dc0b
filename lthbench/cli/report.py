"""`lthbench report`: what a suite found, as a page, tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lthbench import api
from lthbench.api import Source
from lthbench.cli.app import app, fail, out
from lthbench.cli.parameters import with_options


@app.command()
@with_options
def report(
    source: Source,
    folder: Annotated[Path | None, typer.Option("--out", help="Output folder. Default: STORE/reports/SUITE.")] = None,
    figures: Annotated[bool, typer.Option(help="Also write each figure as PDF, SVG and PNG.")] = True,
) -> None:
    """Write what a suite found as one HTML page, with tables (CSV, LaTeX) and figures (PDF, SVG, PNG) beside it."""
    opened = api.open_suite(source)
    planned = api.plan(opened)
    try:
        page = api.report(opened, planned, folder=folder, figures=figures)
    except OSError as error:
        where = folder or api.report_folder(opened)
        fail(f"--out {where}: cannot be written: {error.strerror}; give another folder")
    out.print(f"Report: {page.absolute()}")
