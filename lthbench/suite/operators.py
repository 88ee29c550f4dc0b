"""What a network's forward pass is made of, counted on one image without weights or images."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lthbench.data.spec import DataInfo
from lthbench.models.build import build
from lthbench.models.spec import ModelSpec
from lthbench.suite.model_cost import ModelCost
from lthbench.tasks.layout import Layout


class _OperatorCounter(TorchDispatchMode):
    """Counts the dispatched operators, without views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        aliases = [r.alias_info for r in func._schema.returns]
        self.count += not any(alias is not None and not alias.is_write for alias in aliases)
        return func(*args, **(kwargs or {}))


def count(model: ModelSpec, info: DataInfo) -> ModelCost:
    """Count what one image costs a model."""
    place = model.measured(info).place if model.is_measured else "meta"
    with torch.device(place):
        network = build(model, info.image_shape, info.num_classes).eval()
        with FlopCounterMode(display=False) as counter, _OperatorCounter() as operators:
            network(torch.empty(1, *info.image_shape))
    weights, layout = dict(network.named_parameters()), Layout.of(network, model)
    return ModelCost(
        counter.get_total_flops(),
        operators.count,
        sum(t.numel() * t.element_size() for t in network.state_dict().values()),
        layout,
        {name: weights[name].numel() for name in layout.prunable},
    )
