"""`lthbench verdicts`: which claims hold, on which pair, how strongly, and what would settle the others."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lthbench import api
from lthbench.api import Source
from lthbench.cli.app import JsonOption, app, err, given, out, print_json
from lthbench.cli.parameters import with_options
from lthbench.plain import visible
from lthbench.suite.plan import Plan
from lthbench.tasks.spec import TrainSpec
from lthbench.tasks.store import Store

if TYPE_CHECKING:
    from lthbench.analysis.claims.verdict import More, PartResult, Verdict

_STYLE = {
    "supported": "green", "contradicted": "red", "negligible": "cyan", "inconclusive": "yellow",
    "not applicable": "dim", "not run": "dim",
}  # fmt: skip


@app.command()
@with_options
def verdicts(source: Source, as_json: JsonOption = False) -> None:
    """Show each claim of a suite with its verdict, what was found, interval, test and n; with --json all there is."""
    opened = api.open_suite(source)
    plan = api.plan(opened)
    found = told_folders(api.verdicts(opened, plan, tell=err.print))
    if as_json:
        print_json([asdict(verdict) for verdict in found])
    elif not found:
        out.print(f"{opened.path} names no claims; write `claims: [claims]` in it")
    else:
        print_verdicts(found)
    tell_what_computed(plan, opened.store, err if as_json else out)


def tell_what_computed(plan: Plan, store: Store, console: Console) -> None:
    """Print how many trainings are by the blocked engine, and how many results are of the plain PyTorch reference,
    without compiled kernels; nothing where none is."""
    trainings = [task for planned in plan.tasks.values() if isinstance(task := planned.spec, TrainSpec)]
    if blocked := sum(task.recipe.engine == "blocked" for task in trainings):
        console.print(f"Trained by the blocked engine: {blocked:,} of {len(trainings):,} networks")
    results = [result for key in plan.tasks if (result := store.result(key)) is not None]
    plain = sum(result["environment"].get("kernels") is False for result in results)
    if plain:
        console.print(f"Computed by the plain PyTorch reference, without kernels: {plain:,} of {len(results):,} tasks")


def told_folders(found: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts whose commands have the folders given to this command."""
    options = shlex.join(given("--store", "--data"))
    return [_with(verdict, options) for verdict in found] if options else list(found)


def _with(verdict: Verdict, options: str) -> Verdict:
    if verdict.command:
        verdict = replace(verdict, command=f"{verdict.command} {options}")
    if verdict.more is not None:
        verdict = replace(verdict, more=replace(verdict.more, command=f"{verdict.more.command} {options}"))
    return verdict


def print_short_verdicts(found: Sequence[Verdict], more: str) -> None:
    """A line for each claim and pair that was tested: verdict and finding; what was not run in one line for all.

    Args:
        more: the command that tells the rest.
    """
    from lthbench.analysis.claims.verdict import SILENT

    several = len({verdict.pair for verdict in found if verdict.pair}) > 1
    table = Table("claim", *(("pair",) if several else ()), "verdict", "what was found", title="Claims")
    silent: list[str] = []
    for claim, group in groupby(found, key=lambda verdict: verdict.claim):
        tested = [verdict for verdict in group if verdict.outcome not in SILENT]
        silent += [] if tested else [claim]
        for verdict in tested:
            text = Text(visible(verdict.finding or verdict.sentence), "" if verdict.finding else "dim")
            if verdict.caution:
                text.append(visible(f" ({verdict.caution})"), "dim")
            named = [verdict.pair or "all pairs"] if several else []
            table.add_row(claim if verdict is tested[0] else "", *named, _outcome(verdict.outcome), text)
    if table.row_count:
        out.print(table)
    if silent:
        out.print(f"Not run, or on no pair that they are about: {', '.join(silent)}.")
    out.print(f"`{more}` shows the claims' sentences, tests, intervals and p, and what would settle the open ones.")


def print_verdicts(found: Sequence[Verdict]) -> None:
    """The claim table: a line per claim and pair and, below it, one per part; one line for claims that ran on no
    pair."""
    from lthbench.analysis.claims.verdict import SILENT
    from lthbench.analysis.report.verdict_table import interval_title

    several = len({verdict.pair for verdict in found if verdict.pair}) > 1
    pair = ("pair",) if several else ()
    table = Table("claim", *pair, "verdict", interval_title(found), "p", "n", "claim, and what was found")
    table.title = "Claims"
    commands: dict[tuple[str, str], dict[str, None]] = {}
    for claim, group in groupby(found, key=lambda verdict: verdict.claim):
        verdicts = list(group)
        if verdicts[-1].outcome in SILENT:
            verdicts = verdicts[-1:]
        if table.row_count:
            table.add_section()
        for verdict in verdicts:
            _add_row(table, verdict, verdict is verdicts[0], several)
            if verdict.command:
                commands.setdefault((verdict.lacks, verdict.command), {})[claim] = None
    out.print(table)
    for line in dict.fromkeys(f"{v.pair}: {v.arms}" for v in found if v.pair and "by name)" not in v.arms):
        out.print(f"Arms of {line}")
    if commands:
        out.print("What is not run, or not all of it:")
    for (lacks, command), claims in commands.items():
        out.print(f"  {', '.join(claims)}: {lacks + ', then: ' if lacks else ''}{command}")
    further: dict[More, dict[str, None]] = {}
    for verdict in found:
        if verdict.more is not None:
            further.setdefault(verdict.more, {})[verdict.claim] = None
    if further:
        out.print(
            "More replicates would decide, at the spread of these. Each is a further look at the same numbers: unless "
            "`looks` kept its share of the error rate from the first on, the verdict will say `uncorrected look`."
        )
    for more, claims in further.items():
        line = f"  {', '.join(claims)}: `replicates: {more.replicates}`, then: {more.command}  ({more.text})"
        out.print(line)
    out.print(
        "The interval decides: supported, it lies where the claim says; contradicted, on the other side; negligible, "
        "within the margin on both. A claim holds where all its parts do, over several pairs by Holm's adjustment; p "
        "is that of the outcome, or of support where it is open. Decided only when all replicates are done."
    )


def _add_row(table: Table, verdict: Verdict, is_first: bool, several: bool) -> None:
    from lthbench.analysis.claims.verdict import SILENT
    from lthbench.analysis.quantity import effect_text, p_text

    many = verdict.pair is not None and len(verdict.parts) > 1 and verdict.outcome not in SILENT
    told = [Text.assemble(visible(verdict.sentence), (visible(f" ({verdict.origin})"), "dim"))] if is_first else []
    if verdict.finding and not many:
        told.append(Text(visible(f"Found: {verdict.finding}")))
    if note := _note(verdict, many):
        told.append(Text(visible(note), "dim"))
    table.add_row(
        verdict.claim if is_first else "",
        *([verdict.pair or "all pairs"] if several else []),
        _outcome(verdict.outcome),
        "" if many or verdict.effect is None else effect_text(verdict.effect),
        p_text(verdict.p),
        "" if verdict.outcome in SILENT else f"{verdict.n}/{verdict.planned}",
        Text("\n").join(told),
    )
    for part in verdict.parts if many else ():
        table.add_row(
            *("",) * (1 + several),
            Text.assemble("· ", _outcome(part.outcome) if part.counts else ("reported", "dim")),
            "" if part.effect is None else effect_text(part.effect),
            p_text(part.p),
            "",
            f"· {_of_part(part)}",
        )


def _outcome(outcome: str) -> Text:
    return Text(outcome, _STYLE[outcome])


def _note(verdict: Verdict, parts_follow: bool) -> str:
    """Remarks on a verdict; its parts, if they follow, say more."""
    outlook = verdict.outlook.text if verdict.outlook is not None else ""
    if verdict.outcome == "inconclusive" and 0 < verdict.n < verdict.planned and verdict.pair is not None:
        return "; ".join(filter(None, (verdict.caution, f"{verdict.n} of {verdict.planned} replicates done")))
    of_parts = parts_follow and any(part.reason and part.reason in verdict.reason for part in verdict.parts)
    return "; ".join(filter(None, (verdict.caution, "" if of_parts else verdict.reason, outlook)))


def _of_part(part: PartResult) -> str:
    """The claim of a part, and what was found."""
    from lthbench.analysis.claims.decide import UNDONE

    detail = [part.test] if part.test else []
    if part.detectable is not None and part.effect is not None:
        detail.append(f"detects {part.detectable:.2g} {part.effect.unit}".rstrip())
    if part.reason and not part.reason.endswith(UNDONE):
        detail.append(part.reason)
    found = f"\n  Found: {part.finding}" if part.finding else ""
    return f"{part.what}?{found}" + (f"\n  {'; '.join(detail)}" if detail else "")
