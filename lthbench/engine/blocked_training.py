"""The training passes of a network over its kept weights; convolutions are of blocks of images.

The network's graph is traced, and a module made that computes what the network does in training, with its very
parameters and running statistics: convolutions over the kept weights or dense ones, normalisation with the residual
and the ReLU behind it, sparse linear layers. Layers without a kernel are given images in torch's layout, and stay
torch's.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from lthbench.engine import policy
from lthbench.engine.chains import Chain, Modules, absorb_skips
from lthbench.ops.convolution import SparsityPattern, from_blocks
from lthbench.ops.masked_convolution import MaskedConvolution, blocks_of, plane_mean
from lthbench.ops.masked_linear import MaskedLinear
from lthbench.ops.normalisation import Activations, BatchNorm


def blocked_training(model: nn.Module, mask: Mapping[str, Tensor]) -> fx.GraphModule | None:
    """The training passes of a model on the CPU; None where it cannot be traced or has no layer that there are kernels
    for.

    Args:
        mask: weight name -> bool tensor of its shape, True where a weight survives; a weight without one is dense.
            Pruned weights are 0 already: they are passed over.
    """
    graph = _traced(model)
    if graph is None:
        return None
    rewriter = _Rewriter(graph, Modules(dict(model.named_modules())), mask)
    return rewriter.rewritten() if rewriter.applies else None


def has_blocked_layers(model: nn.Module) -> bool:
    """Whether the blocked engine has kernels for any layer of a model, which may be without memory (on "meta")."""
    graph = _traced(model)
    return graph is not None and _Rewriter(graph, Modules(dict(model.named_modules())), {}).applies


def _traced(model: nn.Module) -> fx.Graph | None:
    try:
        graph = _Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError):
        return None  # its forward pass depends on values, or asks of its images what their proxy cannot tell
    modules = Modules(dict(model.named_modules()))
    return None if modules.has_keywords(graph) or modules.overwritten(graph) is not None else graph


def required_blocked_training(model: nn.Module, mask: Mapping[str, Tensor], *, alone: bool) -> fx.GraphModule:
    """The same for a recipe that names this engine; if it cannot be used, that is an error and not another engine.

    Args:
        alone: whether one process trains, in float32.

    Raises:
        ValueError: there are no such passes.
    """
    passes = None
    if alone and policy.may_train_blocked(model):
        passes = blocked_training(model, mask)
    if passes is None:
        raise ValueError(
            "the engine 'blocked' needs one process on a CPU with kernels, float32, and a network that can be traced "
            "and has convolutions or linear layers that it computes; use the engine 'torch'"
        )
    return passes


class BlockedConvolution(nn.Module):
    """A convolution of the network's on blocks of images, with the batch normalisation behind it, if there is one.

    Args:
        relu: whether what is read passes one.
        skip: it is of every `skip`-th pixel.
        keep: whether what is read, finished, is handed on too.
    """

    def __init__(
        self, layer: nn.Conv2d, norm: nn.BatchNorm2d | None, mask: Tensor | None, skip: int, relu: bool, keep: bool
    ) -> None:
        super().__init__()
        self.weight, self.norm, self.relu, self.keep = layer.weight, norm, relu, keep
        kept = mask if mask is not None else torch.ones(layer.weight.shape, dtype=torch.bool)
        dense = policy.choose_kernel(layer, mask, blocked=True, trained=True) == "winograd"
        geometry = layer.kernel_size[0], layer.stride[0] * skip, int(layer.padding[0])
        self.convolution = MaskedConvolution(None if dense else SparsityPattern.of(kept), *geometry)

    def forward(
        self, values: Tensor, affine: Tensor | None, residual: Tensor | None, num_images: int
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What was handed on (`Activations`) to values and affine of the output, and the finished input if asked.

        The layer's running statistics move as they do in torch.
        """
        read, layer = Activations(values, affine, residual, self.relu), self.norm
        if layer is None:
            return self.convolution(read, self.weight, num_images=num_images, keep=self.keep)
        if not layer.training:
            raise RuntimeError(
                "a normalisation is in evaluation mode; the blocked engine trains with batch statistics alone"
            )
        assert layer.momentum is not None
        if layer.num_batches_tracked is not None:
            layer.num_batches_tracked.add_(1)
        norm = BatchNorm(layer.weight, layer.bias, layer.running_mean, layer.running_var, layer.momentum, layer.eps)
        return self.convolution(read, self.weight, norm, num_images, keep=self.keep)


class SparseLinear(nn.Module):
    """A linear layer of the network's over its kept weights."""

    def __init__(self, layer: nn.Linear, mask: Tensor) -> None:
        super().__init__()
        self.weight, self.bias, self.linear = layer.weight, layer.bias, MaskedLinear.of(mask)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., I] to [..., O]."""
        return self.linear(x.flatten(0, -2), self.weight, self.bias).unflatten(0, x.shape[:-1])


class _Unfinished(NamedTuple):
    """The nodes of `Activations`, which the first layer that reads them finishes."""

    values: fx.Node
    affine: fx.Node | None = None
    residual: fx.Node | None = None
    relu: bool = False


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """A layer, whosever it is."""
        return not list(m.children())


class _Rewriter:
    def __init__(self, graph: fx.Graph, modules: Modules, mask: Mapping[str, Tensor]) -> None:
        self.modules, self.mask = modules, mask
        self.skips = absorb_skips(graph, modules)
        self.nodes = list(graph.nodes)
        self.uses = Counter(node.target for node in self.nodes if node.op == "call_module")
        self.convolutions = {node for node in self.nodes if self._has_kernel(node)}
        self.linears = {node for node in self.nodes if isinstance(modules.module(node), nn.Linear)}
        self.norms: dict[fx.Node, Chain] = {}  # normalisations with what follows, by the last node
        self.absorbed: set[fx.Node | None] = set()
        for last, chain in modules.find_chains(self.nodes).items():
            if chain.layer in self.convolutions and self._has_form(chain):
                self.norms[last] = chain
                self.absorbed |= {chain.layer, chain.norm, chain.add} - {last}
        self.made: dict[fx.Node, fx.Node] = {}
        self.blocked: set[fx.Node] = set()  # the nodes whose value is made in blocks
        self.unfinished: dict[fx.Node, _Unfinished] = {}  # of these those that are not normalised yet
        self.calls: dict[str, nn.Module] = {}
        self.images = next(node for node in self.nodes if node.op == "placeholder")
        self.count: fx.Node  # of these

    @property
    def applies(self) -> bool:
        """Whether there are kernels for any layer, at some density."""
        return bool(self.convolutions or self.linears)

    def rewritten(self) -> fx.GraphModule:
        """The module, which computes in the order of the network's graph."""
        self.body = fx.Graph()
        self.unread = {node: len(node.users) for node in self.nodes}  # less the convolutions that are made
        for node in self.nodes:
            if node in self.absorbed:
                continue
            source = node.args[0] if node.args else None
            if node in self.norms:
                self._emit_convolution(node, self.norms[node])
            elif node in self.convolutions:
                self._emit_convolution(node)
            elif node in self.linears:
                self.made[node] = self._linear(node)
            elif source in self.blocked and _is_plane_mean(node):
                assert isinstance(source, fx.Node)
                self.made[node] = self.body.call_function(plane_mean, (self._in_blocks(source), self.count))
            elif source in self.blocked and type(self.modules.module(node)) is nn.Identity:
                assert isinstance(source, fx.Node)
                self.made[node] = self._in_blocks(source)
                self.blocked.add(node)
            else:
                self.made[node] = self.body.node_copy(node, self._as_images)
                if node.op == "placeholder" and node is self.images:
                    self.count = self.body.call_method("size", (self.made[node], 0))
        self.body.lint()
        # What the network reads of itself beside its layers: a table of position biases, a class token.
        own = {str(node.target): attrgetter(str(node.target)) for node in self.nodes if node.op == "get_attr"}
        network = self.modules.by_name[""]
        read = {name: of(network) for name, of in own.items()}
        return fx.GraphModule({**self.modules.by_name, **self.calls, **read}, self.body)

    def _emit_convolution(self, node: fx.Node, chain: Chain | None = None) -> None:
        """Emit a convolution, or a chain that begins with one in place of its last node."""
        convolution = node if chain is None else chain.layer
        source, layer = convolution.args[0], self.modules.module(convolution)
        assert isinstance(source, fx.Node) and isinstance(layer, nn.Conv2d)
        self.unread[source] -= 1
        keep = source in self.blocked and self.unread[source] > 0
        read = self.unfinished.pop(source, None) or _Unfinished(self._in_blocks(source))
        norm = None if chain is None or chain.norm is None else self.modules.module(chain.norm)
        assert norm is None or isinstance(norm, nn.BatchNorm2d)
        mask, skip = self.mask.get(f"{convolution.target}.weight"), self.skips.get(convolution, 1)
        call = BlockedConvolution(layer, norm, mask, skip, read.relu, keep)
        made = self._call(call, (read.values, read.affine, read.residual, self.count))
        if keep:
            self.made[source] = self._item(made, 2)
        self.blocked.add(node)
        if chain is None:
            self.made[node] = self._item(made, 0)
            return
        residual = None if chain.residual is None else self._in_blocks(chain.residual)
        self.unfinished[node] = _Unfinished(self._item(made, 0), self._item(made, 1), residual, chain.relu is not None)

    def _item(self, made: fx.Node, index: int) -> fx.Node:
        return self.body.call_function(operator.getitem, (made, index))

    def _linear(self, node: fx.Node) -> fx.Node:
        layer, mask = self.modules.module(node), self.mask.get(f"{node.target}.weight")
        assert isinstance(layer, nn.Linear)
        if mask is None or not policy.trains_sparse(layer, mask):
            return self.body.node_copy(node, self._as_images)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        return self._call(SparseLinear(layer, mask), (self._as_images(source),))

    def _call(self, module: nn.Module, arguments: tuple[Any, ...]) -> fx.Node:
        name = f"blocked_{len(self.calls)}"
        self.calls[name] = module
        return self.body.call_module(name, arguments)

    def _in_blocks(self, node: fx.Node) -> fx.Node:
        """The node's value, finished, for what is no convolution with a normalisation behind it."""
        unfinished = self.unfinished.pop(node, None)
        if unfinished is not None:
            self.made[node] = self.body.call_function(_finished, (*unfinished, self.count))
        made = self.made[node]
        return made if node in self.blocked else self.body.call_function(blocks_of, (made, self.count))

    def _as_images(self, node: fx.Node) -> fx.Node:
        if node not in self.blocked:
            return self.made[node]
        return self.body.call_function(_images, (self._in_blocks(node), self.count))

    def _has_kernel(self, node: fx.Node) -> bool:
        layer = self.modules.module(node)
        return type(layer) is nn.Conv2d and policy.trains_blocked(layer, self.mask.get(f"{node.target}.weight"))

    def _has_form(self, chain: Chain) -> bool:
        """Whether the normalisation of a chain, and what follows it, is one that the kernels do."""
        layer = None if chain.norm is None else self.modules.module(chain.norm)
        if chain.norm is None or not isinstance(layer, nn.BatchNorm2d) or not layer.affine or layer.momentum is None:
            return False
        # Called twice, statistics move in the order of the calls, which a chain is not; a parameter is added to all.
        own = chain.residual is not None and chain.residual.op == "get_attr"
        return self.uses[chain.norm.target] == 1 and not own


def _is_plane_mean(node: fx.Node) -> bool:
    return node.op == "call_method" and node.target == "mean" and node.args[1:] == ((2, 3),) and not node.kwargs


def _finished(values: Tensor, affine: Tensor, residual: Tensor | None, relu: bool, num_images: int) -> Tensor:
    return Activations(values, affine, residual, relu).finished(num_images)


def _images(x: Tensor, num_images: int) -> Tensor:
    return from_blocks(x)[:num_images]
