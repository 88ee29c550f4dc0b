"""How far a suite is, by pair and arm, from the store alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from lthbench.runner.store import Store
from lthbench.suite.plan import Plan


@dataclass
class ArmStatus:
    """The tasks of one pair and arm: how many there are, are done, diverged, were refused, and failed (why)."""

    pair: str
    arm: str
    tasks: int = 0
    done: int = 0
    diverged: int = 0
    refused: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def suite_status(plan: Plan, store: Store) -> list[ArmStatus]:
    """The state of every task, counted under the first pair and arm that need it."""
    rows: dict[tuple[str, str], ArmStatus] = {}
    for key in plan.tasks:
        cell = plan.cells[key]
        row = rows.setdefault((cell.pair, cell.arm), ArmStatus(cell.pair, cell.arm))
        row.tasks += 1
        if store.is_done(key, plan.kept(key)):
            row.done += 1
            result = store.result(key)
            row.diverged += result is not None and result["status"] == "diverged"
            row.refused += result is not None and result["status"] == "refused"
        elif (error := store.failure(key)) is not None:
            row.failures[key] = error
    return list(rows.values())
