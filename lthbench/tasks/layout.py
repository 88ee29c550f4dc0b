"""The layers of a network by name, and which of them share a pruning threshold; known without weights, or torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lthbench.models.spec import ModelSpec
from lthbench.tasks.spec import Pruning, layers_of

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Layout:
    """The names that pruning needs to know of a network: prunable weights in parameter order, head, stem."""

    prunable: list[str]
    head: str
    stem: str

    @classmethod
    def of(cls, model: nn.Module, spec: ModelSpec) -> Layout:
        """Of a network, built as a specification says."""
        from lthbench.models.build import head, prunable, stem

        return cls(prunable(model, spec), head(model, spec), stem(model, spec))

    def is_head(self, name: str) -> bool:
        """Whether a parameter belongs to the output layer."""
        return name.startswith(self.head + ".")


def pruning_groups(pruning: Pruning, layout: Layout) -> list[tuple[list[str], float]]:
    """The layers that share a threshold, with their rate; in parameter order, without the excluded layers.

    Raises:
        ValueError: an entry of `exclude` or `rates` matches no layer.
    """
    for entry in (*pruning.exclude, *pruning.rates):
        if not layers_of(entry, layout.prunable):
            raise ValueError(f"pruning names '{entry}', which matches none of the layers")
    excluded = {name for entry in pruning.exclude for name in layers_of(entry, layout.prunable)}
    group_of = {
        name: (entry, rate) for entry, rate in pruning.rates.items() for name in layers_of(entry, layout.prunable)
    }
    groups: dict[tuple[str, float], list[str]] = {}
    for name in layout.prunable:
        if name not in excluded:
            entry, rate = group_of.get(name, ("", pruning.rate))
            groups.setdefault((name if pruning.scope == "layer" else entry, rate), []).append(name)
    return [(names, rate) for (_, rate), names in groups.items()]
