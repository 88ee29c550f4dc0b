"""What planning, submitting and status cost, from 1,000 to 100,000 tasks: `pytest -s --benchmark-enable` prints it.

sbatch is a stand-in that does nothing, so that what is measured is this program.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_store import put_result

from lthbench.runner.slurm.submission import Submission, submit
from lthbench.runner.status import suite_status
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.subset import WHOLE
from lthbench.tasks.store import Store

SUITES = Path(__file__).parents[2] / "suites"
SIZES = (("quick.yaml", 3), ("resnet20-cifar10.yaml", 3), ("paper.yaml", 1), ("paper.yaml", 4))
SECONDS, GIB = 60, 2.0


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of this process and of those it starts, and what the work returned."""
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result = work()
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime for a, b in zip(before, after, strict=True)), result


def measure(folder: Path, include: str, replicates: int) -> dict[str, float]:
    """Processor seconds of each step for a suite of so many replicates."""
    suite = folder / "suite.yaml"
    suite.write_text(f"title: scale\nreplicates: {replicates}\ninclude: [{SUITES / include}]\n")
    store = Store(folder / "store")
    store.check()
    row: dict[str, float] = {}
    row["plan"], plan = seconds_of(lambda: make_plan(load_suite(suite), WHOLE, store.result))
    row["tasks"] = len(plan.tasks)

    def send() -> Any:
        return submit(plan, Submission(suite=suite, store=store), dict)

    row["submit"], sent = seconds_of(send)
    assert sent.tasks == len(plan.tasks)
    row["arrays"], row["lanes"] = sent.arrays, sent.lanes
    for key, task in plan.tasks.items():
        put_result(store, task, plan.kept(key), metrics={"test_accuracy": 0.5}, epoch_losses=[0.123456] * 100)
    row["status"], status = seconds_of(lambda: suite_status(plan, store, suite, {}))
    assert sum(arm.done for arm in status.arms) == len(plan.tasks)
    row["submit again"], sent = seconds_of(send)
    assert sent.lanes == 0
    return row


@pytest.mark.slow
def test_cost_grows_in_proportion_to_tasks(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if benchmark.disabled:
        pytest.skip("measured with --benchmark-enable")
    for name, line in (("sbatch", "echo $$"), ("srun", ""), ("scontrol", "")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    rows = []
    for include, replicates in SIZES:
        folder = tmp_path / f"{include}-{replicates}"
        folder.mkdir()
        rows.append(measure(folder, include, replicates))
        print(", ".join(f"{name} {value:,.4g}" for name, value in rows[-1].items()))
    benchmark.pedantic(lambda: None)
    largest = rows[-1]
    assert largest["tasks"] >= 100_000
    for step in ("plan", "submit", "status", "submit again"):
        assert largest[step] < SECONDS
        slope = np.polyfit(np.log([row["tasks"] for row in rows]), np.log([row[step] for row in rows]), 1)[0]
        assert slope < 1.2, f"{step} grows with the {slope:.2f}th power of the number of tasks"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 < GIB
