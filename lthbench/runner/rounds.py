"""Plan, run what is missing, and plan again: the one loop of runs on this machine and of jobs of a cluster."""

from __future__ import annotations

from collections.abc import Callable

from lthbench.runner.queue import Outcome
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store


def run_in_rounds(
    plan_now: Callable[[], Plan], store: Store, run: Callable[[Plan, list[str]], Outcome]
) -> tuple[Plan, Outcome]:
    """Run a plan, then the tasks that its results add to it, until a round runs nothing.

    Args:
        plan_now: the plan as far as it follows from the store.
        run: runs the missing tasks of a plan, or some of them.

    Returns:
        The last plan, and the outcome: the tasks that ran in all rounds, and those failed and blocked at the end.
    """
    tried: set[str] = set()
    outcome = Outcome()
    while True:
        plan = plan_now()
        missing = store.missing({key: plan.kept(key) for key in plan.tasks})
        # A failed task blocks those that need it, and nothing else: newly planned tasks still run.
        if not missing or (outcome.failed and tried.issuperset(missing)):
            break
        found = run(plan, missing)
        tried.update(missing)
        outcome = Outcome([*outcome.ran, *found.ran], found.failed, found.blocked)
        if not found.ran:
            break
    return plan, outcome
