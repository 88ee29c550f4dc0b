"""`lthbench watch`: a running suite on the terminal, wherever it runs."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live as Display
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lthbench import api
from lthbench.api import Source
from lthbench.cli.app import app, out
from lthbench.cli.parameters import with_options
from lthbench.plain import visible
from lthbench.suite.plan import Plan

if TYPE_CHECKING:
    from lthbench.runner.live import Snapshot

_SHOWN = 12


@app.command()
@with_options
def watch(
    source: Source,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between updates.")] = 5.0,
) -> None:
    """Watch a suite run, here or on a cluster: what runs, how fast, what failed. Ctrl-C leaves; the run continues."""
    from lthbench.runner.live import Live

    opened = api.open_suite(source)
    suite, plan = opened.path, api.plan(opened)
    live = Live(plan, opened.store)
    found = live.look()
    if not out.is_terminal:
        out.print(_dashboard(str(suite), plan, found))
        return
    with Display(_dashboard(str(suite), plan, found), console=out, auto_refresh=False) as display:
        try:
            while True:
                if found.is_done:
                    # What was learnt may have made more tasks known.
                    plan = api.plan(opened)
                    if len(plan.tasks) == sum(arm.tasks for arm in found.arms):
                        return
                    live = Live(plan, opened.store)
                else:
                    time.sleep(every)
                found = live.look()
                display.update(_dashboard(str(suite), plan, found), refresh=True)
        except KeyboardInterrupt:
            return


def _dashboard(title: str, plan: Plan, found: Snapshot) -> Group:
    done, tasks = sum(arm.done for arm in found.arms), sum(arm.tasks for arm in found.arms)
    from lthbench.runner.pace import in_words

    left = "time left unknown" if found.seconds_left is None else f"{in_words(found.seconds_left)} left"
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(visible(title), style="bold"),
        ProgressBar(total=1.0, completed=found.part, width=30),
        f"{100 * found.part:.0f} % of the work known so far, {done:,} of {tasks:,} tasks, "
        + ("done" if found.is_done else left),
    )
    arms = Table("pair", "arm", "tasks", "done", "running", "failed")
    for arm in found.arms:
        failed = Text(f"{arm.failed:,}", style="red" if arm.failed else "")
        arms.add_row(arm.pair, arm.arm, f"{arm.tasks:,}", f"{arm.done:,}", f"{arm.running:,}", failed)
    parts: list[Table | Text] = [head, arms]
    if found.running:
        parts.append(_running(plan, found))
    for running in found.running:
        if running.stall:
            told = f"stalled: {running.key[:8]} {plan.label(running.key)}: {running.stall}"
            parts.append(Text(visible(told), style="yellow"))
    for key, reason in list(found.failures.items())[-5:]:
        last = reason.strip().splitlines()[-1]
        parts.append(Text(visible(f"failed: {key[:8]} {plan.label(key)}: {last}"), style="red"))
    return Group(*parts)


def _running(plan: Plan, found: Snapshot) -> Table:
    table = Table("runs now", "for", "done", "job")
    longest = sorted(found.running, key=lambda running: -running.seconds)
    for running in longest[:_SHOWN]:
        silent = " (silent: its process may be dead)" if running.is_silent else ""
        table.add_row(
            Text(visible(plan.label(running.key)) + silent, style="yellow" if silent else ""),
            str(timedelta(seconds=round(running.seconds))),
            "" if running.part is None else f"{100 * running.part:.0f} %",
            running.job,
        )
    if len(longest) > _SHOWN:
        table.add_row(f"and {len(longest) - _SHOWN:,} more", "", "", "")
    return table
