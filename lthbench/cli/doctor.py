"""`lthbench doctor`: what this installation has."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from lthbench import api
from lthbench.cli.app import JsonOption, app, err, fail, given, out, print_json, progress_bar
from lthbench.cli.parameters import Only, with_options
from lthbench.runner.settings import RunOptions, StoreOptions
from lthbench.tasks.store import Store

if TYPE_CHECKING:
    from lthbench.bench.doctor import Finding
    from lthbench.runner.inspection import Inspection

_STYLE = {"ok": "green", "note": "yellow", "problem": "red"}


@app.command()
@with_options
def doctor(
    results: StoreOptions,
    images: Annotated[RunOptions, Only("data")],
    repair: Annotated[bool, typer.Option("--repair", help="Set aside what is damaged in --store; needs it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is installed, and with --store check every file of a store; exits with 1 on a problem."""
    from lthbench.bench.doctor import examine

    is_given = bool(given("--store"))
    if repair and not is_given:
        fail("--repair: of which store? Give --store too")
    checked = api.open_store(results, may_be_new=not repair) if is_given else None
    findings = examine(results.store, images.data)
    if checked is not None and not checked.is_new():
        findings.append(_check_files(checked, repair))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        table = Table("", "", "", show_header=False)
        for finding in findings:
            table.add_row(Text(finding.level, _STYLE[finding.level]), finding.what, finding.text)
        out.print(table)
    if any(finding.level == "problem" for finding in findings):
        sys.exit(1)


def _check_files(store: Store, repair: bool) -> Finding:
    """Read every file of a store, report damaged ones, and set them aside with --repair."""
    from lthbench.bench.doctor import Finding
    from lthbench.runner.inspection import repair as repair_store

    found = inspect_with_progress(store)
    if repair:
        repair_store(store, found, err.print)
    else:
        tell_of(store, found)
    cure = shlex.join(["lthbench", "doctor", "--store", str(store.root), "--repair"])
    before = f"; {len(found.set_aside)} files set aside before are still there" if found.set_aside else ""
    if found.abandoned:
        before += f"; {len(found.abandoned)} files left by processes that are no more, "
        before += "now deleted" if repair else f"which `{cure}` deletes"
    read = f"{found.tasks:,} tasks with a result in {store.root}, all of their files read{before}"
    if found.is_sound:
        return Finding("note" if before else "ok", "files", read)
    number = len(found.faults) + len(found.outdated)
    if repair:
        return Finding("note", "files", f"{read}; {number} of them are to be run again, which `lthbench run` does")
    return Finding(
        "problem", "files", f"{read}; {number} of them are not as they were written; `{cure}`, then run again"
    )


def inspect_with_progress(store: Store, keys: Collection[str] | None = None) -> Inspection:
    """Inspect a store's tasks, all or some, with a progress bar."""
    from lthbench.runner.inspection import inspect_store

    with progress_bar(transient=True) as progress:
        line = progress.add_task("reading")
        return inspect_store(store, keys, lambda done, total: progress.update(line, completed=done, total=total))


def tell_of(store: Store, found: Inspection) -> None:
    """Print what an inspection found."""
    for faults in found.faults.values():
        for fault in faults:
            err.print(str(fault))
    for key in found.outdated:
        err.print(f"{store.folder(key)}: read what has other bits by now")
    for path in found.set_aside:
        err.print(f"{path}: was set aside before")
    for path in found.abandoned:
        err.print(f"{path}: left by a process that is no more")
