"""`lthbench doctor`: what this installation has."""

from __future__ import annotations

import sys
from dataclasses import asdict

from rich.table import Table

from lthbench.cli.app import DEFAULT_STORE, DataOption, JsonOption, StoreOption, app, out, print_json


@app.command()
def doctor(store: StoreOption = DEFAULT_STORE, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show what this installation has: versions, devices, kernels, data sets, store; exits with 1 on a problem."""
    from lthbench.runner.doctor import examine

    findings = examine(store, data)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table("", "", "", show_header=False)
        for finding in findings:
            mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}[finding.level]
            table.add_row(mark, finding.what, finding.text)
        out.print(table)
    if any(finding.level == "problem" for finding in findings):
        sys.exit(1)
