"""lthbench: a reproducibility benchmark for lottery tickets and their distance from initialisation.

import lthbench

suite = lthbench.load_suite("quick", store="store")
lthbench.run(suite, on_finished=lambda task, status: print(status, task))
table = lthbench.results(suite)                       # a pandas DataFrame, one measured number per row
claims = lthbench.verdicts(suite)
ticket = lthbench.load_ticket(suite, "lenet-fashion-10k", "early", replicate=0, level=5)

These names are imported on first use, so that `import lthbench` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lthbench.api import load_suite, load_ticket, plan, results, run, verdicts
    from lthbench.engine.linear_path import evaluate_linear_path
    from lthbench.ops import MaskedAdamW, MaskedSGD, prune_lowest
    from lthbench.runner.execution import Local
    from lthbench.runner.settings import RunOptions
    from lthbench.suite.subset import Subset

__all__ = [
    "Local",
    "MaskedAdamW",
    "MaskedSGD",
    "RunOptions",
    "Subset",
    "evaluate_linear_path",
    "load_suite",
    "load_ticket",
    "plan",
    "prune_lowest",
    "results",
    "run",
    "verdicts",
]

_ELSEWHERE = {
    "Local": "lthbench.runner.execution",
    "MaskedAdamW": "lthbench.ops",
    "MaskedSGD": "lthbench.ops",
    "RunOptions": "lthbench.runner.settings",
    "Subset": "lthbench.suite.subset",
    "evaluate_linear_path": "lthbench.engine.linear_path",
    "prune_lowest": "lthbench.ops",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'lthbench' has no attribute '{name}'; it has {', '.join(__all__)}")
    return getattr(import_module(_ELSEWHERE.get(name, "lthbench.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
