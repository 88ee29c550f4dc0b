"""Where a training starts: the network, its initial weights and its mask, rebuilt from the specification alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lthbench.tasks.context import Context
from lthbench.tasks.layout import Layout
from lthbench.tasks.network import apply_mask, make_network, set_initial_weights, weights_of, with_shuffled_survivors
from lthbench.tasks.spec import MaskSpec, TrainSpec, parse_spec


class Start(NamedTuple):
    """A network about to be trained.

    Attributes:
        model: with the initial weights, pruned ones 0.
        layout: its prunable weights, head and stem.
        initial: name -> weights of the training's own initialisation, shuffled if the start is.
        mask: name -> bool, True where a weight survives; empty for a dense network.
        whole_head: the output layer's weight before its mask was applied.
    """

    model: nn.Module
    layout: Layout
    initial: dict[str, Tensor]
    mask: dict[str, Tensor]
    whole_head: Tensor

    def for_probe(self) -> Start:
        """The same network, in place, with its output layer whole again and without a mask.

        A probe measures how separable the untrained features are, so the fitted layer is dense under every rule; the
        mask is that of the features.
        """
        with torch.no_grad():
            self.model.get_parameter(self.layout.head + ".weight").copy_(self.whole_head)
        return self._replace(mask=_without_head(self.mask, self.layout))


def start_of(spec: TrainSpec, context: Context) -> Start:
    """Build the network of a training as it is before the first step.

    Raises:
        Refused: the training whose weights or mask it takes diverged or was refused.
    """
    model = make_network(spec.model, spec.data, context.device)
    layout = Layout.of(model, spec.model)
    set_initial_weights(model, spec.model, spec.seed, spec.init)
    initial = weights_of(model)
    if spec.start is not None:
        weights = context.network(spec.start)[0]
        if spec.new_head:
            weights = {name: initial[name] if layout.is_head(name) else t for name, t in weights.items()}
        if spec.start.step is None and isinstance(parse_spec(context.specification(spec.start.task)), MaskSpec):
            initial = weights  # that came with an imported mask: distances and the penalty are from these
        model.load_state_dict(weights)
    mask = _start_mask(spec, layout, context)
    if spec.shuffle:
        # The initialisation likewise, so that distances and penalty refer to this control's own.
        initial = with_shuffled_survivors(initial, layout.prunable, mask, spec.seed)
        model.load_state_dict(with_shuffled_survivors(weights_of(model), layout.prunable, mask, spec.seed))
    whole_head = model.get_parameter(layout.head + ".weight").detach().clone()
    apply_mask(model, mask)
    return Start(model, layout, initial, mask, whole_head)


def mask_of(spec: TrainSpec, layout: Layout, context: Context) -> dict[str, Tensor]:
    """The mask outside of which a training's final weights are 0; a layer without one is dense.

    Raises:
        Refused: the mask could not be made.
    """
    mask = _start_mask(spec, layout, context)
    return mask if spec.probe is None else _without_head(mask, layout)


def _start_mask(spec: TrainSpec, layout: Layout, context: Context) -> dict[str, Tensor]:
    mask = context.mask(spec.mask) if spec.mask else {}
    return _without_head(mask, layout) if spec.new_head else mask


def _without_head(mask: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    return {name: m for name, m in mask.items() if not layout.is_head(name)}


def anchors_of(spec: TrainSpec, start: Start, context: Context) -> dict[str, Tensor]:
    """The centre of the penalty `recipe.pull` of the prunable weights."""
    source = start.initial
    if spec.anchor == "zero":
        return {name: torch.zeros_like(source[name]) for name in start.layout.prunable}
    if spec.anchor:
        other = make_network(spec.model, spec.data, context.device)
        set_initial_weights(other, spec.model, spec.seed, spec.anchor)
        source = weights_of(other)
    return {name: source[name] for name in start.layout.prunable}
