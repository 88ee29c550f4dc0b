"""The experiments of the paper, by the name that suites use."""

from lthbench.experiments.cell import Arm, Cell, Experiment, Reading
from lthbench.experiments.controls import Controls
from lthbench.experiments.imp import Imp
from lthbench.experiments.stability import Stability

EXPERIMENTS: dict[str, type[Experiment]] = {
    "imp": Imp,
    "controls": Controls,
    "stability": Stability,
}

__all__ = ["EXPERIMENTS", "Arm", "Cell", "Experiment", "Reading"]
