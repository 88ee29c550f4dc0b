"""The typed face of the kernels: masked updates, global magnitude thresholds, interpolation evaluation."""

from lthbench.ops.line import LineResult, evaluate_line
from lthbench.ops.prune import Pruned, prune_lowest
from lthbench.ops.update import MaskedAdamW, MaskedSGD

__all__ = ["LineResult", "MaskedAdamW", "MaskedSGD", "Pruned", "evaluate_line", "prune_lowest"]
