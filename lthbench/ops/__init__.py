"""The typed face of the kernels: masked updates, global magnitude thresholds."""

from lthbench.ops.optimizers import MaskedAdamW, MaskedSGD
from lthbench.ops.pruning import Pruned, prune_lowest

__all__ = ["MaskedAdamW", "MaskedSGD", "Pruned", "prune_lowest"]
