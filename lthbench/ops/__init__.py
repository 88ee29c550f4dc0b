"""What users call of the kernels: masked optimizers and pruning to a global magnitude threshold."""

from lthbench.ops.optimizers import MaskedAdamW, MaskedSGD
from lthbench.ops.pruning import Pruned, prune_lowest

__all__ = ["MaskedAdamW", "MaskedSGD", "Pruned", "prune_lowest"]
