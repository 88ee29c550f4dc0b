"""The experiments of the paper, by the name that suites use, and those that plugins add."""

from collections.abc import Callable
from typing import TypeVar

from lthbench import registry
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

ExperimentClass = TypeVar("ExperimentClass", bound=type[Experiment])


def register_experiment(name: str) -> Callable[[ExperimentClass], ExperimentClass]:
    """Add an experiment, which a suite names under `experiments:`; the annotated fields of its class are its options.

    The class says in `variants` and `metrics` what its `measurements` can be of and have, and yields them for a `Cell`.

    Raises:
        PluginError: the name is taken, no plugin is being loaded, or the class is no experiment.
    """

    def register(cls: ExperimentClass) -> ExperimentClass:
        if not (isinstance(cls, type) and issubclass(cls, Experiment)) or cls.measurements is Experiment.measurements:
            raise registry.PluginError(f"experiment '{name}': must be a class of Experiment that has `measurements`")
        if cls in EXPERIMENTS.values():
            raise registry.PluginError(
                f"experiment '{name}': {cls.__name__} has a name already; register another class"
            )
        if not cls.variants or not cls.metrics:
            raise registry.PluginError(f"experiment '{name}': must say its `variants` and `metrics`, which claims name")
        entry: type[Experiment] = cls
        registry.add("experiment", EXPERIMENTS, name, entry)
        return cls

    return register


__all__ = ["EXPERIMENTS", "Arm", "Cell", "Experiment", "Measurement", "register_experiment"]
