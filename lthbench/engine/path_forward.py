"""How all networks of a path evaluate a batch: on a fused graph, all at once, or one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lthbench.engine import policy
from lthbench.engine.graph import Fused
from lthbench.engine.path_weights import Networks
from lthbench.engine.policy import PathEngine, choose_path_engine
from lthbench.engine.trace import fuse
from lthbench.ops.interpolation import lerp_linear, lerp_relu, lerp_stacked

Forward = Callable[[Tensor], Tensor]


def make_forward(
    model: nn.Module, networks: Networks, method: str, mask: Mapping[str, Tensor], *, trained_blocked: bool = False
) -> tuple[Forward, int]:
    """The evaluation of images [B, ...] by all networks, to logits [K, B, C], and how many images to give it.

    Args:
        mask, trained_blocked: as for `evaluate_linear_path`.

    Raises:
        ValueError: the method does not apply to the model or its device.
    """
    engine = choose_path_engine(
        networks,
        mask,
        lambda blocked: fuse(model, mask if blocked else None, trained_blocked=trained_blocked),
        method,
        trained_blocked=trained_blocked,
    )
    return forward_of(engine, model, networks), engine.num_images


def forward_of(engine: PathEngine, model: nn.Module, networks: Networks) -> Forward:
    """The same by the engine that the policy chose."""
    forward: Forward
    if engine.graph is not None:
        if engine.method == "blocked":
            _keep_freed_memory()
        forward = _FusedForward(networks, engine.graph)
    elif engine.method == "stacked":
        forward = lambda x: _stacked(model, networks, x)  # noqa: E731
    else:
        forward = lambda x: torch.stack([_one(model, networks, k, x) for k in range(networks.num_points)])  # noqa: E731
    return forward if networks.device.type == "cpu" else _WithinMemory(forward, networks.device)


def _one(model: nn.Module, networks: Networks, k: int, images: Tensor) -> Tensor:
    return functional_call(model, networks.network(k), (images,))


def _stacked(model: nn.Module, networks: Networks, images: Tensor) -> Tensor:
    # Under vmap torch asks for the layout of what goes to cuDNN, and knows of one alone. Grey images whose channel lies
    # last are contiguous as they are; flattened, they lose the strides that say so.
    images = images.contiguous().flatten().view(images.shape)

    def one(state: dict[str, Tensor]) -> Tensor:
        return functional_call(model, {**networks.constant, **state}, (images,))

    return torch.vmap(one)(networks.stacks(networks.names))


class _WithinMemory:
    """Evaluates on a GPU as many images at a time as fit into what the policy allows, and into half of the free
    memory."""

    def __init__(self, forward: Forward, device: torch.device) -> None:
        self.forward, self.device = forward, device
        self.num_images: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        if self.num_images is None:
            self.num_images = self._that_fit(images[:8])
        return torch.cat([self.forward(part) for part in images.split(self.num_images)], 1)

    def _that_fit(self, few: Tensor) -> int:
        """A power of two, by what the evaluation of a few images takes."""
        self.forward(few)  # makes what stays
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self.forward(few)
        taken = max(1, torch.cuda.max_memory_allocated(self.device) - before)
        cached = torch.cuda.memory_reserved(self.device) - before
        free = torch.cuda.mem_get_info(self.device)[0] + cached
        num_images: int = min(policy.BYTES_CUDA, free // 2) * len(few) // taken
        return 1 << max(0, num_images.bit_length() - 1)


def _keep_freed_memory() -> None:
    """Let glibc keep what one layer frees for the next: returning the pages to the system costs a tenth of the time.

    It does so for up to twice of the largest block freed so far, unless the user's environment sets its thresholds.
    """
    torch.empty(30 << 20, dtype=torch.uint8)


class _FusedForward:
    """All networks of a path on one fused graph."""

    def __init__(self, networks: Networks, fused: Fused) -> None:
        self.networks = networks
        self.fused = fused
        self.stacks: _Weights | None = None
        if networks.fits:
            with torch.inference_mode():
                self.stacks = self._weights(networks.stacks(fused.names))
        a, b = (dict(zip(networks.names, end, strict=True)) for end in (networks.a, networks.b))
        self.ends = [
            [(end[f"{linear.name}.weight"], end.get(f"{linear.name}.bias")) for end in (a, b)]
            for linear in fused.linears
        ]

    def __call__(self, images: Tensor) -> Tensor:
        if images.dim() == 4 and images.device.type == "cpu" and not self.fused.blocked:
            images = images.contiguous(memory_format=torch.channels_last)
        shared = self.fused.prefix(images)
        split = len(shared) - len(self.ends)
        hidden = [(F.linear(x, *a), F.linear(x, *b)) for x, (a, b) in zip(shared[split:], self.ends, strict=True)]
        constants = [self.networks.constant[name] for name in self.fused.constants]
        logits: Tensor | None = None
        if self.stacks is not None:
            outputs = self._shared_outputs(hidden, self.networks.alphas, self.stacks)
        for k in range(self.networks.num_points):
            weights, row = self.stacks, k
            if weights is None:
                network = self.networks.network(k)
                weights = self._weights({n: t[None] for n, t in network.items() if t.is_floating_point()})
                row = 0
                outputs = self._shared_outputs(hidden, self.networks.alphas[k : k + 1], weights)
            own = self.fused.body(
                *shared[:split],
                *(t[row] for t in outputs),
                *constants,
                *(t[row] for t in weights.arguments),
            )
            if logits is None:
                logits = own.new_empty(self.networks.num_points, len(images), *own.shape[1:])
            logits[k] = own[: len(images)]
        assert logits is not None
        return logits

    def _weights(self, states: dict[str, Tensor]) -> _Weights:
        seconds = [linear.second.make(states) if linear.second else None for linear in self.fused.linears]
        return _Weights(self.fused.stack(states), seconds)

    def _shared_outputs(self, hidden: list[tuple[Tensor, Tensor]], alphas: Tensor, weights: _Weights) -> list[Tensor]:
        """The outputs [K, B, N] of each shared linear layer, which the body takes, from its pre-activations at both
        ends."""
        outputs = []
        for linear, (a, b), second in zip(self.fused.linears, hidden, weights.seconds, strict=True):
            if linear.second is not None and second is not None:
                out = lerp_linear(a, b, alphas, *second, relu=linear.second.relu)
                outputs.append(out[..., : linear.second.num_outputs])
            else:
                outputs.append(lerp_relu(a, b, alphas) if linear.relu else lerp_stacked([a], [b], alphas)[0])
        return outputs


class _Weights(NamedTuple):
    """What networks add to the fused graph, all of them or one, stacked."""

    arguments: list[Tensor]  # of the body
    seconds: list[tuple[Tensor, Tensor] | None]  # weight [K, H, N] and bias [K, N] behind each shared linear layer
