"""The experiments of the paper, by the name that suites use."""

from lthbench.experiments.aimp import Aimp
from lthbench.experiments.cell import Arm, Cell
from lthbench.experiments.controls import Controls, CrossedMasks
from lthbench.experiments.convergence import Convergence
from lthbench.experiments.distance import Distance
from lthbench.experiments.experiment import Experiment, Measurement
from lthbench.experiments.generalisation import FewShot, FrozenFeatures, Transfer
from lthbench.experiments.imp import Imp, LearningRateRewinding
from lthbench.experiments.imported import Imported
from lthbench.experiments.regulariser import Regulariser
from lthbench.experiments.sensitivity import Sensitivity
from lthbench.experiments.stability import LevelBarriers, Onset, Stability

EXPERIMENTS: dict[str, type[Experiment]] = {
    "imp": Imp,
    "lr-rewinding": LearningRateRewinding,
    "controls": Controls,
    "crossed-masks": CrossedMasks,
    "stability": Stability,
    "level-barriers": LevelBarriers,
    "onset": Onset,
    "aimp": Aimp,
    "distance": Distance,
    "regulariser": Regulariser,
    "frozen-features": FrozenFeatures,
    "few-shot": FewShot,
    "transfer": Transfer,
    "convergence": Convergence,
    "sensitivity": Sensitivity,
    "imported": Imported,
}

__all__ = ["EXPERIMENTS", "Arm", "Cell", "Experiment", "Measurement"]
