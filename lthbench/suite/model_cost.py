"""`ModelCost`: what one image costs a model. Counting imports torch, seconds, so what was counted is kept in a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import lthbench
from lthbench.data.spec import DataSpec
from lthbench.models.spec import ModelSpec
from lthbench.suite.kept import digest_of, kept
from lthbench.tasks.layout import Layout, pruning_groups
from lthbench.tasks.spec import Pruning, num_survivors


@dataclass(frozen=True)
class ModelCost:
    """The cost of one image in a model.

    Attributes:
        forward_flops: multiply and add counted apart.
        operators: operations of a forward pass that compute something, each of which is a launch on a GPU.
        prunable: name -> number of weights.
    """

    forward_flops: int
    operators: int
    parameter_bytes: int
    layout: Layout
    prunable: dict[str, int]

    def pruned_weights(self, pruning: Pruning, level: int) -> int:
        """How many weights a level has pruned."""
        total = sum(self.prunable[name] for names, _ in pruning_groups(pruning, self.layout) for name in names)
        return total - sum(survivors for _, survivors in self.survivors(pruning, level))

    def survivors(self, pruning: Pruning, level: int) -> list[tuple[list[str], int]]:
        """How many weights survive to a level, of all layers together that share a threshold."""
        return [
            (names, num_survivors(sum(self.prunable[name] for name in names), rate, level))
            for names, rate in pruning_groups(pruning, self.layout)
        ]


@cache
def model_cost(model: ModelSpec, data: DataSpec) -> ModelCost:
    """What one image of a data set costs a model: read where this version has counted it before, else counted.

    A plugin's model is always counted, as its source is not known here.
    """
    info = data.info

    def counted() -> ModelCost:
        from lthbench.suite.operators import count

        return count(model, info)

    if model.is_measured:
        return counted()
    known = [torch_version(), _sources(), model.model_dump_json(), str((info.image_shape, info.num_classes))]
    return kept("models", known, counted, lambda cost: ModelCost(**(cost | {"layout": Layout(**cost["layout"])})))


@cache
def _sources() -> str:
    """The digest of what builds and counts networks."""
    package = Path(lthbench.__file__).parent
    files = [*sorted((package / "models").glob("*.py")), package / "suite/operators.py", package / "tasks/layout.py"]
    return digest_of(files)


@cache
def torch_version() -> str:
    """The version of the installed torch, with its build, without importing it."""
    found = find_spec("torch")
    assert found is not None and found.origin is not None
    file = spec_from_file_location("_torch_version", Path(found.origin).with_name("version.py"))
    assert file is not None and file.loader is not None
    module = module_from_spec(file)
    file.loader.exec_module(module)
    return str(module.__version__)
