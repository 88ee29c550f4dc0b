"""Which task of a suite trains a ticket."""

from __future__ import annotations

from lthbench.experiments.cell import Cell
from lthbench.names import unknown
from lthbench.suite.plan import Plan
from lthbench.suite.schema import Pair, Suite
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.spec import Task


def pair_of(suite: Suite, name: str | None) -> Pair:
    """A pair of a suite by its name, or its only one.

    Raises:
        SuiteError: it has none of the name, or several and none was named.
    """
    if name is None and len(suite.pairs) > 1:
        raise SuiteError(f"--pair: which one? The suite has {', '.join(suite.pairs)}")
    if name is not None and name not in suite.pairs:
        raise SuiteError(unknown("pair", name, suite.pairs))
    return suite.pairs[name or next(iter(suite.pairs))]


def cell_of(suite: Suite, pair: str, arm: str, replicate: int) -> Cell:
    """A cell of a suite by its names.

    Raises:
        SuiteError: it has none; the message names what there is.
    """
    if pair not in suite.pairs:
        raise SuiteError(unknown("pair", pair, suite.pairs))
    if arm not in suite.pairs[pair].arms:
        raise SuiteError(f"pair {pair}: {unknown('arm', arm, suite.pairs[pair].arms)}")
    for cell in suite.cells():
        if (cell.pair, cell.arm, cell.replicate) == (pair, arm, replicate):
            return cell
    tested = suite.tested()
    raise SuiteError(f"replicate {replicate}: the suite has {suite.replicates}; give {tested[0]} to {tested[-1]}")


def ticket_task(suite: Suite, pair: str, arm: str, replicate: int, level: int, rewind: int = 0) -> Task:
    """The training of a ticket of iterative magnitude pruning; that of level 0 is the dense network's.

    Args:
        rewind: the iteration whose weights it starts from.

    Raises:
        SuiteError: as for `cell_of`, or no ticket can be of this level or rewound so far.
    """
    cell = cell_of(suite, pair, arm, replicate)
    if level < 0:
        raise SuiteError(f"level {level}: a ticket is of level 0 (the dense network) or more")
    try:
        return cell.ticket(level, rewind)
    except ValueError as error:
        raise SuiteError(f"rewind {rewind}: {error}") from error


def check_planned(plan: Plan, pair: str, arm: str, task: Task) -> None:
    """Tell where no experiment of a suite trains a ticket, so that to run it would not either.

    Raises:
        SuiteError: it names the tickets that there are.
    """
    if task.key in plan.tasks:
        return
    found = sorted(
        {
            (placed.measurement.step or 0, placed.measurement.level)
            for placed in plan.measurements
            if (placed.cell.pair, placed.cell.arm) == (pair, arm)
            and placed.measurement.variant in ("dense", "ticket")
            and placed.measurement.level is not None
        }
    )
    there = ", ".join(f"{level}" + (f" rewound to {step}" if step else "") for step, level in found)
    raise SuiteError(
        f"no experiment of pair {pair} trains this ticket of arm {arm}; it has levels {there or 'of none'}"
    )
