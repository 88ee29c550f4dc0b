"""`lthbench verdicts`: which claims hold, on which pair, how strongly, and what would settle the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from lthbench.cli.app import DEFAULT_STORE, JsonOption, StoreOption, SuiteArgument, app, out, print_json
from lthbench.runner.store import Store
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.schema import Suite

if TYPE_CHECKING:
    from lthbench.analysis.verdict import Part, Verdict

_STYLE = {"supported": "green", "contradicted": "red", "inconclusive": "yellow", "not run": "dim"}


@app.command()
def verdicts(suite: SuiteArgument, store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Show the verdict on each claim of a suite, with effect, interval, test and n; with --json all there is."""
    found = find_verdicts(load_suite(suite), Store(store), suite)
    if as_json:
        print_json(_finite([asdict(verdict) for verdict in found]))
    elif not found:
        out.print(f"{suite} names no claims; write `claims: [claims]` in it", markup=False)
    else:
        print_verdicts(found)


def find_verdicts(suite: Suite, store: Store, path: Path) -> list[Verdict]:
    """The verdicts on a suite's claims from what the store has; none where the suite names no claims."""
    if not suite.claims:
        return []
    from lthbench.analysis.judge import verdicts

    return verdicts(make_plan(suite, result_of=store.result), store, str(path))


def _finite(value: Any) -> Any:
    """A value with None for ends that are open: JSON has no infinity."""
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_verdicts(found: Sequence[Verdict], with_parts: bool = True) -> None:
    """The claim table: a line a claim and pair and, under it, one a part; one line for what is run on no pair."""
    several = len({verdict.pair for verdict in found if verdict.pair}) > 1
    pair = ("pair",) if several else ()
    table = Table("claim", *pair, "verdict", "effect, 95 % interval", "p", "n", "claim and what was found")
    table.title = "Claims"
    commands: dict[str, list[str]] = {}
    for claim, group in groupby(found, key=lambda verdict: verdict.claim):
        verdicts = list(group)
        if verdicts[-1].outcome == "not run":
            verdicts = verdicts[-1:]
        if table.row_count and (with_parts or several):
            table.add_section()
        for verdict in verdicts:
            _add_row(table, verdict, verdict is verdicts[0], with_parts, several)
            if verdict.command:
                names = commands.setdefault(verdict.command, [])
                names += [] if claim in names else [claim]
    out.print(table)
    for line in dict.fromkeys(f"{v.pair}: {v.arms}" for v in found if v.pair and "by name)" not in v.arms):
        out.print(f"Arms of {line}", markup=False)
    if commands:
        out.print("What is not run, or not all of it:")
    for command, claims in commands.items():
        out.print(f"  {', '.join(claims)}: {command}", markup=False)
    out.print(
        "A claim holds where all its parts do; its p is the largest of theirs, adjusted over pairs (Holm). "
        "Contradicted: shown to be smaller than its margin, with the p of that. "
        "Decided only when all replicates are done."
    )


def _add_row(table: Table, verdict: Verdict, is_first: bool, with_parts: bool, several: bool) -> None:
    from lthbench.analysis.quantity import effect_text, p_text

    many = with_parts and verdict.pair is not None and len(verdict.parts) > 1 and verdict.outcome != "not run"
    told = [f"{escape(verdict.sentence)} [dim]({verdict.origin})[/]"] if is_first else []
    if finding := _finding(verdict, many):
        told.append(escape(finding))
    table.add_row(
        verdict.claim if is_first else "",
        *([escape(verdict.pair or "all pairs")] if several else []),
        _outcome(verdict.outcome),
        "" if many or verdict.effect is None else effect_text(verdict.effect),
        p_text(verdict.adjusted_against if verdict.outcome == "contradicted" else verdict.adjusted_p),
        "" if verdict.outcome == "not run" else f"{verdict.n}/{verdict.planned}",
        "\n".join(told),
    )
    for part in verdict.parts if many else ():
        table.add_row(
            *("",) * (1 + several),
            f"· {_outcome(part.outcome) if part.counts else '[dim]reported[/]'}",
            "" if part.effect is None else effect_text(part.effect),
            p_text(part.p_against if part.outcome == "contradicted" else part.p),
            "",
            f"· {escape(_of_part(part))}",
        )


def _outcome(outcome: str) -> str:
    return f"[{_STYLE[outcome]}]{outcome}[/]"


def _finding(verdict: Verdict, parts_follow: bool) -> str:
    """What there is to say of a verdict in few words; its parts, where they follow, say more."""
    settle = f"about {verdict.seeds:,} replicates would settle it" if verdict.seeds is not None else ""
    counting = [part for part in verdict.parts if part.counts]
    if verdict.outcome == "not run" or verdict.pair is None or not counting:
        return verdict.reason
    if verdict.outcome == "contradicted" and verdict.decisive is not None and not parts_follow:
        return f"not so: {verdict.parts[verdict.decisive].what}" if len(counting) > 1 else ""
    if verdict.outcome != "inconclusive":
        return ""
    if verdict.n < verdict.planned:
        return f"{verdict.n} of {verdict.planned} replicates done"
    num_open = sum(part.outcome != "supported" for part in counting)
    opened = f"{num_open} of {len(counting)} parts open" if len(counting) > 1 else counting[0].reason
    return settle if parts_follow else "; ".join(filter(None, (opened, settle)))


def _of_part(part: Part) -> str:
    from lthbench.analysis.decide import UNDONE

    detail = [part.test] if part.test else []
    if part.detectable is not None and part.effect is not None:
        detail.append(f"detects {part.detectable:.2g} {part.effect.unit}".rstrip())
    if part.reason and not part.reason.endswith(UNDONE):
        detail.append(part.reason)
    return part.what + (f" [{'; '.join(detail)}]" if detail else "")
