"""The typed face of the kernels: masked updates, global magnitude thresholds, interpolation evaluation."""

from lthbench.ops.prune import Pruned, prune_lowest
from lthbench.ops.update import MaskedAdamW, MaskedSGD

__all__ = ["MaskedAdamW", "MaskedSGD", "Pruned", "prune_lowest"]
