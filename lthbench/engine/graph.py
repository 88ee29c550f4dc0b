"""A network's graph with its weights as arguments, and how the networks of a path fill them in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, fx

from lthbench.engine.fused_layers import BlockedConvolution, BlockedPair, convolution
from lthbench.ops.convolution import SparsityPattern, to_blocked


@dataclass(frozen=True)
class SharedLinear:
    """A linear layer that sees the same input in all networks: its output is linear in alpha.

    Where a ReLU and a second linear layer follow, ``second`` is that layer; ``body`` takes its output then.
    """

    name: str  # of the module
    relu: bool  # whether a ReLU follows it
    second: FollowingLinear | None


@dataclass(frozen=True)
class FollowingLinear:
    """The linear layer behind a shared one."""

    name: str
    relu: bool
    num_outputs: int

    def make(self, states: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weight [K, H, N] and bias [K, N] of all networks as `lerp_linear` takes them: padded with zeros."""
        weight = states[f"{self.name}.weight"]
        bias = states.get(f"{self.name}.bias")
        if bias is None:
            bias = weight.new_zeros(weight.shape[:2])
        pad = -self.num_outputs % 16
        return F.pad(weight.transpose(1, 2), (0, pad)).contiguous(), F.pad(bias, (0, pad))


@dataclass
class Fused:
    """A traced network, ready for the weights of any path.

    ``prefix`` maps the images to the values that all networks share; ``body`` maps these values, the outputs of the
    shared linear layers, the constants and one network's weights to its logits.
    """

    prefix: fx.GraphModule
    body: fx.GraphModule
    linears: list[SharedLinear]
    constants: list[str]  # entries of a state that are no floating point tensors, which all networks share
    weights: list[Weight]
    state_names: frozenset[str]  # of the whole network
    trainable: fx.GraphModule  # the unfused network, indifferent to the memory format of its input

    @property
    def names(self) -> list[str]:
        """The entries of a state that all K networks differ in, as far as ``body`` reads them."""
        names = [name for weight in self.weights for name in weight.sources(self.state_names)]
        seconds = [linear.second.name for linear in self.linears if linear.second]
        names += [f"{name}.{part}" for name in seconds for part in ("weight", "bias")]
        return [name for name in dict.fromkeys(names) if name in self.state_names]

    @property
    def has_convolution(self) -> bool:
        """Whether activations are planes, which fill a cache sooner than vectors do."""
        dense = any(node.target is convolution for node in self.body.graph.nodes)
        return dense or self.blocked

    @property
    def blocked(self) -> bool:
        """Whether convolutions have the batch-blocked layout."""
        return any(isinstance(module, (BlockedConvolution, BlockedPair)) for module in self.body.children())

    @property
    def stays_in_blocks(self) -> bool:
        """Whether no layer between the convolutions, such as pooling, needs the usual layout."""
        return self.blocked and not any(node.target is to_blocked for node in self.body.graph.nodes)

    def stack(self, states: Mapping[str, Tensor]) -> list[Tensor]:
        """The weights that ``body`` takes, [K, ...] each, from the interpolated entries [K, *shape] by name."""
        return [made for weight in self.weights for made in weight.make(states)]


@dataclass(frozen=True)
class Weight:
    """Which arguments of ``body`` come from which entries of a state."""

    names: tuple[str, ...]  # the entry itself, or a convolution's weight and bias ("" without one)
    norm: str = ""  # the normalisation layer folded into them
    eps: float = 0.0
    pattern: SparsityPattern | None = None  # of the kept weights, which alone are taken; a bias is always made
    winograd: bool = False  # whether Winograd's convolution takes them, which wants a bias as well

    def sources(self, known: Collection[str]) -> list[str]:
        """The entries of a state that ``make`` reads."""
        norm = ("running_mean", "running_var", "weight", "bias") if self.norm else ()
        return [n for n in (*self.names, *(f"{self.norm}.{part}" for part in norm)) if n in known]

    def make(self, states: Mapping[str, Tensor]) -> list[Tensor]:
        made = [states[name] for name in self.names if name]
        if self.norm:
            scale, shift = _scale_and_shift(states, self.norm, self.eps)
            if not self.names:
                return [scale.float(), shift.float()]
            weight = states[self.names[0]]
            # In double: folding in float32 would add a rounding that evaluating the layers alone does not have.
            bias = states[self.names[1]].double() * scale + shift if self.names[1] else shift
            made = [weight.double() * scale[:, :, None, None, None], bias]
        if self.pattern is None and not self.winograd:
            return [_channels_last(t.float()) for t in made]
        weight, bias = made if len(made) == 2 else (made[0], made[0].new_zeros(made[0].shape[:2]))
        if self.pattern is not None:
            weight = weight.flatten(1)[:, self.pattern.index]
        return [weight.float().contiguous(), bias.float().contiguous()]


def _scale_and_shift(states: Mapping[str, Tensor], norm: str, eps: float) -> tuple[Tensor, Tensor]:
    variance = states[f"{norm}.running_var"].double()
    scale = (variance + eps).rsqrt()
    if f"{norm}.weight" in states:
        scale = scale * states[f"{norm}.weight"].double()
    shift = -states[f"{norm}.running_mean"].double() * scale
    if f"{norm}.bias" in states:
        shift = shift + states[f"{norm}.bias"].double()
    return scale, shift


def _channels_last(stack: Tensor) -> Tensor:
    """Each convolution weight of a stack [K, O, I, H, W] in channels-last order; anything else contiguous."""
    if stack.dim() != 5:
        return stack.contiguous()
    return stack.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
