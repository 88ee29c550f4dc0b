"""Make a network's graph take its weights as arguments: normalisation folded, activations and sums fused.

One graph then evaluates all networks of a path, and what does not depend on the weights is computed once for all of
them. A network that torch.fx cannot trace, or with a layer that is not known here, is evaluated as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lthbench.engine.chains import Chain, Modules, absorb_skips, only_user
from lthbench.engine.fused_layers import BlockedConvolution, convolution, pair_convolutions, scale_and_shift
from lthbench.engine.graph import FollowingLinear, Fused, SharedLinear, Weight
from lthbench.engine.policy import choose_kernel
from lthbench.ops.convolution import SparsityPattern, from_blocked, to_blocked


def fuse(model: nn.Module, mask: Mapping[str, Tensor] | None = None, *, trained_blocked: bool = False) -> Fused | None:
    """Trace a network in evaluation mode; None where it cannot be traced or holds a layer not known here.

    Args:
        mask: weight name -> bool tensor of its shape, for convolutions in the batch-blocked layout (on the CPU): over
            the kept weights alone, or all where a quarter or more are kept. A weight without one is dense; None keeps
            the channels-last layout.
        trained_blocked: whether a strided slice before a projection becomes its stride, as in the blocked engine.
    """
    try:
        graph = fx.Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError):
        return None  # its forward pass depends on values, or on properties of its images that a proxy does not have
    try:
        modules = dict(model.named_modules())
        if len([n for n in graph.nodes if n.op == "placeholder"]) != 1:
            return None
        _drop_identities(graph, modules)
        skips = absorb_skips(graph, Modules(modules)) if trained_blocked and mask is not None else {}
        return _GraphRewriter(model, graph, modules, mask, skips).fused()
    except _Unknown:
        return None


def _drop_identities(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    for node in list(graph.nodes):
        if node.op == "call_module" and isinstance(modules[node.target], (nn.Identity, nn.Dropout)):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.op == "call_method" and node.target == "view":
            node.target = "reshape"  # a view of channels-last activations may not exist


class _Unknown(Exception):
    """The graph holds something that this file does not handle."""


@dataclass
class _GraphRewriter:
    model: nn.Module
    graph: fx.Graph
    modules: dict[str, nn.Module]
    mask: Mapping[str, Tensor] | None = None
    skips: Mapping[fx.Node, int] = field(default_factory=dict)  # further strides of convolutions
    weights: list[Weight] = field(default_factory=list)
    linears: list[SharedLinear] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    calls: dict[str, nn.Module] = field(default_factory=dict)  # blocked convolutions, as modules of the body
    num_arguments: int = 0  # tensors that the weights give the body

    def fused(self) -> Fused:
        nodes = list(self.graph.nodes)
        self.nodes = Modules(self.modules)
        self.state = self.model.state_dict()
        self.position = {node: i for i, node in enumerate(nodes)}
        if self.nodes.has_keywords(self.graph):
            raise _Unknown("a layer is given its input by name")
        if (node := self.nodes.overwritten(self.graph)) is not None:
            raise _Unknown(f"{node} overwrites what is read elsewhere")
        self.chains = self.nodes.find_chains(nodes)  # last node -> chain
        absorbed = {n for c in self.chains.values() for n in (c.layer, c.norm, c.add, c.relu) if n and n is not c.last}
        shared = self._find_shared(nodes)
        wanted = [
            n
            for n in nodes
            if n in shared and any(u not in shared and not self._is_shared_linear(u, shared) for u in n.users)
        ]
        linears = {c.layer: c for c in self.chains.values() if self._is_shared_linear(c.layer, shared)}
        prefix = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        for node in nodes:
            if node in shared:
                copied[node] = prefix.node_copy(node, lambda n: copied[n])
        # Images that only convolutions read are laid out in blocks once for all networks.
        self.blocked = {
            n for n in wanted if self.mask is not None and all(self.nodes.is_convolution(u) for u in n.users)
        }
        for node in self.blocked:
            copied[node] = prefix.call_function(to_blocked, (copied[node],))
        prefix.output(tuple(copied[n] for n in wanted) + tuple(copied[_source(layer)] for layer in linears))

        self.body = fx.Graph()
        self.made: dict[fx.Node, fx.Node] = {}
        self.owned: set[fx.Node] = set()  # outputs of convolutions, which nothing else refers to
        for i, node in enumerate(wanted):
            self.made[node] = self.body.placeholder(f"shared_{i}")
        for i, chain in enumerate(linears.values()):
            second = self._second(chain)
            self.made[chain.last] = self.body.placeholder(f"linear_{i}")
            if second is not None:
                self.made[second.last] = self.made[chain.last]
            self.linears.append(SharedLinear(str(chain.layer.target), chain.relu is not None, self._describe(second)))
        # Weights come after, in order of use; placeholders must come first, so they are inserted here.
        self.head_constants = self.body.call_function(int)
        self.head = self.body.call_function(int)
        for node in nodes:
            if node in shared or node in absorbed or node in self.made:
                continue
            self.made[node] = self._emit(node)
        self.body.erase_node(self.head_constants)
        self.body.erase_node(self.head)
        pair_convolutions(self.body, self.calls)
        self.body.lint()
        root: Any = {**self.modules, **self.calls} if self.calls else self.model
        trainable = fx.GraphModule(self.model, self.graph)
        return Fused(
            fx.GraphModule(self.model, prefix),
            fx.GraphModule(root, self.body),
            self.linears,
            self.constants,
            self.weights,
            frozenset(self.state),
            trainable,
        )

    def _find_shared(self, nodes: Sequence[fx.Node]) -> set[fx.Node]:
        """The nodes whose value is the same for all networks."""
        shared: set[fx.Node] = set()
        for node in nodes:
            module = self.nodes.module(node)
            stateless = module is None or not module.state_dict()
            if node.op == "placeholder" or (
                node.op in ("call_module", "call_function", "call_method")
                and stateless
                and all(n in shared for n in node.all_input_nodes)
            ):
                shared.add(node)
        return shared

    def _is_shared_linear(self, node: fx.Node, shared: set[fx.Node]) -> bool:
        return type(self.nodes.module(node)) is nn.Linear and node.args[0] in shared

    def _second(self, chain: Chain) -> Chain | None:
        """The linear layer that alone reads the relu output of a shared one."""
        user = only_user(chain.last) if chain.relu else None
        if user is None or type(self.nodes.module(user)) is not nn.Linear:
            return None
        return next(c for c in self.chains.values() if c.layer is user)

    def _describe(self, second: Chain | None) -> FollowingLinear | None:
        if second is None:
            return None
        module = self.nodes.module(second.layer)
        assert isinstance(module, nn.Linear)
        return FollowingLinear(str(second.layer.target), second.relu is not None, module.out_features)

    def _weight(self, weight: Weight, count: int) -> list[fx.Node]:
        """New arguments of the body that hold a weight's tensors."""
        first = self.num_arguments
        self.num_arguments += count
        self.weights.append(weight)
        with self.body.inserting_before(self.head):
            return [self.body.placeholder(f"weight_{first + i}") for i in range(count)]

    def _emit(self, node: fx.Node) -> fx.Node:
        if node.op == "output":
            return self.body.output(self._arguments(node.args[0]))
        if node in self.chains:
            chain = self.chains[node]
            return (
                self._linear(chain) if type(self.nodes.module(chain.layer)) is nn.Linear else self._convolution(chain)
            )
        if node.op == "get_attr" and str(node.target) in self.state:
            if not self.state[str(node.target)].is_floating_point():
                self.constants.append(str(node.target))
                with self.body.inserting_before(self.head_constants):
                    return self.body.placeholder(f"constant_{len(self.constants) - 1}")
            return self._weight(Weight((str(node.target),)), 1)[0]
        module = self.nodes.module(node)
        if module is None or not module.state_dict():
            return self.body.node_copy(node, self._value)
        if self.nodes.is_norm(node):
            assert isinstance(module, nn.BatchNorm2d)
            scale, shift = self._weight(Weight((), str(node.target), module.eps), 2)
            return self.body.call_function(scale_and_shift, (self._input(node), scale, shift))
        if type(module) is nn.LayerNorm and module.elementwise_affine and module.bias is not None:
            weight = self._weight(Weight((f"{node.target}.weight",)), 1)[0]
            bias = self._weight(Weight((f"{node.target}.bias",)), 1)[0]
            shape = tuple(module.normalized_shape)
            return self.body.call_function(F.layer_norm, (self._input(node), shape, weight, bias, module.eps))
        raise _Unknown(f"{node.target} is a {type(module).__name__}")

    def _value(self, node: fx.Node, blocked: bool = False) -> fx.Node:
        """What the body has for a node, batch-blocked or in the network's own layout."""
        made = self.made[node]
        if (node in self.blocked) == blocked:
            return made
        return self.body.call_function(to_blocked if blocked else from_blocked, (made,))

    def _input(self, node: fx.Node, blocked: bool = False) -> fx.Node:
        """What the body has for a layer's input."""
        return self._value(_source(node), blocked)

    def _arguments(self, arguments: Any) -> Any:
        return fx.map_arg(arguments, self._value)

    def _linear(self, chain: Chain) -> fx.Node:
        module, name = self.nodes.module(chain.layer), chain.layer.target
        assert isinstance(module, nn.Linear)
        weight = self._weight(Weight((f"{name}.weight",)), 1)[0]
        bias = self._weight(Weight((f"{name}.bias",)), 1)[0] if module.bias is not None else None
        out = self.body.call_function(F.linear, (self._input(chain.layer), weight, bias))
        return self.body.call_function(torch.relu_, (out,)) if chain.relu else out

    def _convolution(self, chain: Chain) -> fx.Node:
        module, name = self.nodes.module(chain.layer), chain.layer.target
        assert isinstance(module, nn.Conv2d)
        bias_name = f"{name}.bias" if module.bias is not None else ""
        if self.mask is not None:
            return self._blocked_convolution(chain, module, bias_name)
        bias: fx.Node | None = None
        if chain.norm is not None:
            norm = self.nodes.module(chain.norm)
            assert isinstance(norm, nn.BatchNorm2d)
            folded = Weight((f"{name}.weight", bias_name), str(chain.norm.target), norm.eps)
            weight, bias = self._weight(folded, 2)
        else:
            weight = self._weight(Weight((f"{name}.weight",)), 1)[0]
            if bias_name:
                bias = self._weight(Weight((bias_name,)), 1)[0]
        operands = (self._input(chain.layer), weight, bias)
        geometry = (module.stride, module.padding, module.dilation, module.groups)
        residual: dict[str, Any] = {}
        if chain.residual is not None:
            in_place = self._may_overwrite(chain, chain.residual)
            residual = {"residual": self.made[chain.residual], "in_place": in_place}
        options = {"relu": chain.relu is not None, **residual}
        out = self.body.call_function(convolution, (*operands, *geometry), options)
        self.owned.add(chain.last)
        return out

    def _blocked_convolution(self, chain: Chain, module: nn.Conv2d, bias_name: str) -> fx.Node:
        assert self.mask is not None
        assert not isinstance(module.padding, str)
        kernel, padding = module.kernel_size[0], module.padding[0]
        stride = module.stride[0] * self.skips.get(chain.layer, 1)
        square = all(len(set(p)) == 1 for p in (module.kernel_size, module.stride, module.padding))
        if not square or padding > 1 or module.groups != 1 or set(module.dilation) != {1}:
            raise _Unknown(f"{chain.layer.target} has no square kernel, or a padding, dilation or groups over 1")
        name = f"{chain.layer.target}.weight"
        norm, eps = "", 0.0
        if chain.norm is not None:
            layer = self.nodes.module(chain.norm)
            assert isinstance(layer, nn.BatchNorm2d)
            norm, eps = str(chain.norm.target), layer.eps
        kept = self.mask.get(name, torch.ones(module.weight.shape, dtype=torch.bool))
        winograd = choose_kernel(module, kept, blocked=True) == "winograd"
        pattern = None if winograd else SparsityPattern.of(kept)
        call = BlockedConvolution(pattern, (kernel, stride, padding), chain.relu is not None)
        weight, bias = self._weight(Weight((name, bias_name), norm, eps, pattern, winograd), 2)
        residual = None if chain.residual is None else self._value(chain.residual, blocked=True)
        target = f"blocked_{len(self.weights)}"
        self.calls[target] = call
        self.blocked.add(chain.last)
        return self.body.call_module(target, (self._input(chain.layer, blocked=True), weight, bias, residual))

    def _may_overwrite(self, chain: Chain, residual: fx.Node) -> bool:
        """Whether the sum is the last use of what is added, and nothing else refers to its memory."""
        here = self.position[chain.last]
        last_of = {c.layer: last for last, c in self.chains.items()}
        return residual in self.owned and all(
            user is chain.add
            or (user in last_of and self.position[last_of[user]] < here and self.nodes.is_convolution(user))
            for user in residual.users
        )


def _source(layer: fx.Node) -> fx.Node:
    """The node that a layer of one input reads."""
    source = layer.args[0]
    assert isinstance(source, fx.Node)
    return source
