"""Which nodes of a traced network become one call: a convolution or linear layer, and what follows it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

_RELUS = (F.relu, torch.relu, torch.relu_, "relu", "relu_")
_ADDS = (operator.add, torch.add)  # tracing turns += into +


@dataclass
class Chain:
    """Nodes that become one call: a convolution or linear layer and what follows it."""

    layer: fx.Node
    norm: fx.Node | None = None
    add: fx.Node | None = None
    residual: fx.Node | None = None  # what is added
    relu: fx.Node | None = None

    @property
    def last(self) -> fx.Node:
        return self.relu or self.add or self.norm or self.layer


class Modules:
    """What the nodes of a traced network are, by the modules that they call."""

    def __init__(self, by_name: Mapping[str, nn.Module]) -> None:
        self.by_name = by_name

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if it calls one."""
        return self.by_name[str(node.target)] if node.op == "call_module" else None

    def is_relu(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return type(self.module(node)) is nn.ReLU
        return node.op in ("call_function", "call_method") and node.target in _RELUS

    def is_norm(self, node: fx.Node) -> bool:
        module = self.module(node)
        return type(module) is nn.BatchNorm2d and module.track_running_stats

    def is_convolution(self, node: fx.Node) -> bool:
        module = self.module(node)
        return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)

    def is_pointwise(self, node: fx.Node) -> bool:
        """Whether it is a convolution that reads a pixel for each of its outputs, and nothing else."""
        module = self.module(node)
        return type(module) is nn.Conv2d and module.kernel_size == (1, 1) and module.padding == (0, 0)

    def has_keywords(self, graph: fx.Graph) -> bool:
        """Whether a layer is given its input by name, where it is not looked for here."""
        return any(node.op == "call_module" and node.kwargs for node in graph.nodes)

    def overwritten(self, graph: fx.Graph) -> fx.Node | None:
        """A node that overwrites what is read elsewhere, if any does: fusing moves reads past writes."""
        for node in graph.nodes:
            overwrites = (
                getattr(self.module(node), "inplace", False)
                or node.kwargs.get("inplace", False)
                or node.target is torch.relu_
                or (node.op == "call_method" and str(node.target).endswith("_"))
            )
            if overwrites and isinstance(node.args[0], fx.Node) and len(node.args[0].users) > 1:
                return node
        return None

    def find_chains(self, nodes: Sequence[fx.Node]) -> dict[fx.Node, Chain]:
        """The chains of a graph, by their last nodes."""
        chains: dict[fx.Node, Chain] = {}
        taken: set[fx.Node] = set()
        for node in nodes:  # a convolution, its normalisation, and a sum with something else
            if node.op != "call_function" or node.target not in _ADDS or len(node.args) != 2 or node.kwargs:
                continue
            for end, other in (node.args, node.args[::-1]):
                chain = self._convolution_ending_at(end)
                if chain and isinstance(other, fx.Node) and other is not end:
                    chain.add, chain.residual = node, other
                    taken.add(chain.layer)
                    self._close(chain, chains)
                    break
        for node in nodes:
            if node in taken:
                continue
            if self.is_convolution(node):
                chain = Chain(node)
                user = only_user(node)
                if user is not None and self.is_norm(user):
                    chain.norm = user
                self._close(chain, chains)
            elif type(self.module(node)) is nn.Linear:
                self._close(Chain(node), chains)
        return chains

    def _convolution_ending_at(self, node: Any) -> Chain | None:
        if not isinstance(node, fx.Node) or len(node.users) != 1:
            return None
        if self.is_convolution(node):
            return Chain(node)
        layer = node.args[0] if self.is_norm(node) else None
        if isinstance(layer, fx.Node) and self.is_convolution(layer) and len(layer.users) == 1:
            return Chain(layer, norm=node)
        return None

    def _close(self, chain: Chain, chains: dict[fx.Node, Chain]) -> None:
        user = only_user(chain.last)
        if user is not None and self.is_relu(user):
            chain.relu = user
        chains[chain.last] = chain


def absorb_skips(graph: fx.Graph, modules: Modules) -> dict[fx.Node, int]:
    """Let 1x1 convolutions read what a slice x[:, :, ::s, ::s] before them reads, and erase it; s by convolution.

    Narrow ResNets project so (models/resnet.py); as a stride of s the slice needs no layout of its own.
    """
    skips: dict[fx.Node, int] = {}
    for node in list(graph.nodes):
        step = _step_of(node)
        if step is not None and node.users and all(modules.is_pointwise(user) for user in node.users):
            for user in list(node.users):
                user.args = (node.args[0],)
                skips[user] = step
            graph.erase_node(node)
    return skips


def _step_of(node: fx.Node) -> int | None:
    if node.op != "call_function" or node.target is not operator.getitem:
        return None
    every, step = slice(None), getattr(node.args[1][-1] if isinstance(node.args[1], tuple) else None, "step", None)
    taken = slice(None, None, step)
    return step if isinstance(step, int) and step > 0 and node.args[1] == (every, every, taken, taken) else None


def only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
