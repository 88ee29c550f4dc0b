"""What `lthbench plan --budget` proposes of a suite with claims: the part that decides the most of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from lthbench import api
from lthbench.api import OpenSuite
from lthbench.cli.app import again, given, out, print_json
from lthbench.options import OptionError

if TYPE_CHECKING:
    from lthbench.analysis.claims.power import ClaimPower
    from lthbench.suite.devices import Device

POLICY = (
    "A claim is decided on a pair where an effect that would matter is found with a chance of 80 %, at the level that "
    "Holm's adjustment leaves over all pairs of the suite. Of the parts that the budget pays for, this one decides the "
    "most; among those equal in this, it may decide the most if effects are larger; then it is the cheapest. What is "
    "left of the budget decides no more."
)


def propose_for_claims(opened: OpenSuite, device: Device, hours: float, as_json: bool) -> None:
    """Print the commands of the part that decides the most claims, and what it leaves undecided and why.

    Raises:
        OptionError: the hours decide nothing, or the device was not measured on all pairs.
    """
    from lthbench.analysis.claims.affordable import Powers, affordable, within
    from lthbench.analysis.claims.spreads import Spreads
    from lthbench.suite.budget import Prices, seconds_left
    from lthbench.suite.cost import in_words
    from lthbench.suite.subset import Subset

    planned, per_second = api.plan(opened), device.units / 3600
    prices = Prices(planned, seconds_left(planned, opened.store, device, str(opened.path)))
    powers = Powers(planned, Spreads.known(opened.path))
    parts = affordable(powers, prices)
    bought = within(parts, hours / per_second)
    if not bought.parts:
        least = next((one for one in parts if one.parts), None)
        why = f"the least that may takes {in_words(least.seconds * per_second)}" if least else "no part of it does"
        raise OptionError(f"{hours:g} {device.unit} of {device.label} decide no claim of {opened.path}: {why}")
    price = prices.of(*bought.parts) * per_second
    undecided = _undecided(powers.of(Subset()), bought.decided)
    commands = [["lthbench", "run", str(opened.path), *part.options()] for part in bought.parts]
    if as_json:
        print_json(
            {
                **budget_facts(hours, device, POLICY),
                "parts": [asdict(part) for part in bought.parts],
                "commands": [[*command, *given("--store", "--data", "--plugin")] for command in commands],
                "hours": price,
                "decided": sorted(bought.decided),
                "decided_if_large": sorted(bought.perhaps),
                "undecided": [[*which, why] for which, why in undecided.items()],
            }
        )
        return
    table = Table("pair", "decides", "if effects are large", "hours", "hours per claim",
                  title=f"{opened.path}: what {hours:g} {device.unit} decide")  # fmt: skip
    for part in bought.parts:
        (pair,) = part.pairs
        sure, perhaps = (_claims(c for c, p in found if p == pair) for found in (bought.decided, bought.perhaps))
        cost, number = prices.of(part) * per_second, len([p for _, p in bought.decided if p == pair])
        table.add_row(pair, sure, perhaps, in_words(cost), in_words(cost / number) if number else "")
    out.print(table)
    out.print(
        f"{len(bought.decided)} of {len(bought.decided) + len(undecided)} decisions, in {in_words(price)} of "
        f"{device.label}. {device.source}."
    )
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (claim, pair), why in undecided.items():
        lines[claim, why].append(pair)
    for (claim, why), pairs in lines.items():
        out.print(f"Undecided, {claim} on {', '.join(pairs)}: {why}.")
    out.print(f"Policy. {POLICY}")
    if (count := bought.parts[0].replicates) is not None:
        out.print(
            f"It has {count} of {opened.suite.replicates} replicates, and verdicts wait for all that are planned: "
            f"before it is run, write `replicates: {count}` in the suite."
        )
    for part in bought.parts:
        out.print(again("run", opened.path, *part.options()))


def budget_facts(hours: float, device: Device, policy: str) -> dict[str, object]:
    """What the JSON of every proposal begins with."""
    return {
        "budget_hours": hours,
        "unit": device.unit,
        "device": device.label,
        "source": device.source,
        "policy": policy,
    }


def _undecided(whole: Iterable[ClaimPower], decided: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Claim and pair -> why the proposed part does not decide it, of all that a suite has."""
    found = {}
    for one in whole:
        if one.decides == "reported only" or (one.claim, one.pair) in decided:
            continue
        weakest = one.parts[one.weakest] if one.weakest is not None else None
        reason = (weakest.reason if weakest else "") or one.decides
        found[one.claim, one.pair] = "it costs more" if one.decides == "yes" else f"not by the whole suite: {reason}"
    return found


def _claims(names: Iterable[str]) -> str:
    return ", ".join(sorted(names, key=lambda name: (len(name), name)))
