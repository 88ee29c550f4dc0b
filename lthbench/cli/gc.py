"""`lthbench gc`: what of a store no suite needs, and its removal."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lthbench import api
from lthbench.api import OpenSuite, Source
from lthbench.cli.app import JsonOption, app, err, fail, out, print_json, progress_bar
from lthbench.cli.own import Own
from lthbench.cli.parameters import with_options
from lthbench.experiments.imported import Imported
from lthbench.runner.settings import StoreOptions
from lthbench.suite.engine_choice import by_every_engine
from lthbench.tasks.paths import TICKETS
from lthbench.tasks.store import Store


@app.command()
@with_options
def gc(
    where: StoreOptions,
    own: Own,
    suites: Annotated[list[Path], typer.Argument(metavar="SUITE...", help="What these need stays.")],
    ticket: Annotated[
        list[str] | None, typer.Option(help="With --yes, remove this imported ticket too (may be repeated).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, it is only shown.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which tasks of a store no given suite needs, and their size; with --yes, delete them.

    What a process works at stays, as do reports and imported tickets. Killed at any moment, nothing that is needed is
    lost: a task is there whole, or gone.
    """
    from lthbench.runner.garbage import find_garbage, remove

    opened = [api.open_suite(Source(suite=suite, **vars(where), **vars(own))) for suite in suites]
    store = api.open_store(where)
    found = find_garbage(store, lambda: {key for suite in opened for key in _needed(suite)})
    unneeded = _tickets(store, opened, ticket or [])
    held: list[str] = []
    if yes:
        with progress_bar(transient=True) as progress:
            line = progress.add_task("removing", total=len(found.sizes))
            for path in unneeded:
                path.unlink(missing_ok=True)
            held = remove(store, found.sizes, lambda done: progress.update(line, completed=done))
    if as_json:
        print_json(vars(found) | {"bytes": found.total, "removed": yes, "held": held})
        return
    named = ", ".join(map(str, suites))
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in found.kinds.most_common()) or "nothing"
    out.print(f"needed by {named}: {found.num_kept:,} tasks, {_megabytes(found.bytes_kept)}")
    out.print(f"needed by none of them: {kinds}, {_megabytes(found.total)}")
    for key in held:
        err.print(f"{store.folder(key)}: a process works at it; it stays")
    if yes:
        out.print(f"removed: {len(found.sizes) - len(held):,} tasks")
    elif found.total:
        out.print(f"`{shlex.join(['lthbench', *sys.argv[1:], '--yes'])}` removes it")


def _needed(opened: OpenSuite) -> Iterator[str]:
    """The tasks of a suite by whichever engine."""
    for suite in by_every_engine(opened.suite):
        yield from api.plan(replace(opened, suite=suite)).tasks


def _tickets(store: Store, suites: Sequence[OpenSuite], names: Sequence[str]) -> list[Path]:
    """The files of imported tickets that are to go; one that a suite names, or that is not there, ends the command."""
    for name in names:
        path = store.root / TICKETS / f"{name}.safetensors"
        if not path.exists():
            fail(f"--ticket {name}: {path}: is not there")
        for opened in suites:
            experiments = [e for pair in opened.suite.pairs.values() for e in pair.experiments.values()]
            if any(isinstance(e, Imported) and name in e.tickets for e in experiments):
                fail(f"--ticket {name}: {opened.path} needs it; leave one of them out")
    return [store.root / TICKETS / f"{name}.safetensors" for name in names]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
