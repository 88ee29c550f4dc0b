"""Loss and error of the networks along the line between two networks, each batch gone through once for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lthbench.ops.fusion import Fused, fuse
from lthbench.ops.interpolation import count_errors, lerp_linear, lerp_relu, lerp_stacked

State = Mapping[str, Tensor]
Batch = tuple[Tensor, Tensor]


class LineResult(NamedTuple):
    """What every network on the line scored, at alpha_k for entry k."""

    loss: Tensor  # [K] float64, mean cross entropy an image
    error: Tensor  # [K] float64, fraction of images whose label is wrong
    num_images: int


def evaluate_line(
    model: nn.Module,
    state_a: State,
    state_b: State,
    alphas: Tensor | Sequence[float],
    batches: Iterable[Batch],
    *,
    statistics: Literal["interpolate", "recompute"] = "interpolate",
    statistics_batches: Iterable[Batch] | None = None,
    method: Literal["auto", "fused", "stacked", "each"] = "auto",
    stacked_bytes: int = 2 << 30,
) -> LineResult:
    """Evaluate the networks a + alpha (b - a) for all alphas in one pass over the batches.

    Args:
        model: the architecture; its own weights are neither read nor changed.
        state_a: name -> parameter or buffer of the end at alpha = 0, as of `state_dict`, on the device to run on.
        state_b: the same names, shapes and device for the end at alpha = 1. Floating point entries are
            interpolated in float32; of others (counters) the end a is taken.
        alphas: [K] points; 0 and 1 give exactly the two ends.
        batches: (images [B, C, H, W] float32, labels [B] int64) pairs, gone through once.
        statistics: "interpolate" takes the normalisation statistics of the line's own weights, as any other entry;
            "recompute" estimates them for each network as the mean over `statistics_batches` of what each batch
            gives in training mode (torch.optim.swa_utils.update_bn does the same).
        statistics_batches: batches for "recompute", gone through once, in their order.
        method: "fused" evaluates the networks one after another on a graph with normalisation folded and
            activations fused; "stacked" all at once by torch.vmap; "each" the model as it is with each network's
            weights. "auto" takes "stacked" for small networks on CUDA, else "fused", and "each" for what
            cannot be fused.
        stacked_bytes: networks that together need more memory than this are formed anew for every batch.

    Returns:
        Loss and error of every network on the CPU. Each network's loss agrees with that of evaluating it alone up
        to float32 rounding; the result is the same bits at every run with the same number of threads.

    Raises:
        ValueError: the states' names, shapes or devices disagree, `statistics_batches` is missing or superfluous,
            or there was no image.
    """
    points = torch.as_tensor(alphas, dtype=torch.float64).reshape(-1).cpu()
    _check(model, state_a, state_b, points, statistics, statistics_batches)
    loss_sum = torch.zeros(len(points), dtype=torch.float64)
    num_errors = torch.zeros(len(points), dtype=torch.int64)
    num_images = 0
    with _evaluation_mode(model):
        line = _Line(state_a, state_b, points, stacked_bytes)
        fused = fuse(model)
        if statistics_batches is not None:
            line.recompute_statistics(model, fused, statistics_batches)
        forward = _forward(model, line, fused, method)
        chunk = _chunk(line, fused)
        # Reading stays outside inference_mode: what the iterable keeps may be trained on later.
        for images, labels in batches:
            with torch.inference_mode():
                for x, y in zip(images.split(chunk), labels.split(chunk), strict=True):
                    counts = count_errors(forward(x.to(line.device)), y.to(line.device))
                    loss_sum += counts.loss_sum.cpu()
                    num_errors += counts.num_errors.cpu()
            num_images += len(labels)
    if num_images == 0:
        raise ValueError("batches holds no image; give at least one")
    return LineResult(loss_sum / num_images, num_errors.double() / num_images, num_images)


_FILLS_A_GPU = 16 << 20  # bytes of weights from which one network is taken to fill a device
_CHUNK_PLANES = 64  # images a thread evaluates at a time: activations of small networks then stay in its cache
_CHUNK_CUDA = 1024
_CHUNK_VECTORS = 336  # without convolutions


def _check(
    model: nn.Module,
    state_a: State,
    state_b: State,
    points: Tensor,
    statistics: str,
    statistics_batches: Iterable[Batch] | None,
) -> None:
    if len(points) == 0:
        raise ValueError("alphas is empty; give at least one point")
    if set(state_a) != set(state_b):
        different = sorted(set(state_a) ^ set(state_b))
        raise ValueError(f"state_a and state_b hold different names: {', '.join(different[:5])}")
    if set(state_a) != set(model.state_dict()):
        different = sorted(set(state_a) ^ set(model.state_dict()))
        raise ValueError(f"state_a and model hold different names: {', '.join(different[:5])}")
    for name, a in state_a.items():
        b = state_b[name]
        if a.shape != b.shape or a.device != b.device or a.is_floating_point() != b.is_floating_point():
            raise ValueError(
                f"{name} is {a.dtype} {tuple(a.shape)} on {a.device} in state_a, "
                f"{b.dtype} {tuple(b.shape)} on {b.device} in state_b"
            )
    if statistics not in ("interpolate", "recompute"):
        raise ValueError(f"statistics is {statistics!r}, expected 'interpolate' or 'recompute'")
    if (statistics == "recompute") != (statistics_batches is not None):
        raise ValueError("give statistics_batches with statistics='recompute', and only then")


class _Line:
    """The K networks on the line, by name: stacked where memory allows, else formed anew into one buffer."""

    def __init__(self, state_a: State, state_b: State, points: Tensor, stacked_bytes: int) -> None:
        self.names = [name for name, t in state_a.items() if t.is_floating_point()]
        if not self.names:
            raise ValueError("state_a holds no floating point tensor; give a network's state_dict")
        self.num_points = len(points)
        self.a = [state_a[name].detach().float() for name in self.names]
        self.b = [state_b[name].detach().float() for name in self.names]
        self.device = self.a[0].device
        self.alphas = points.to(self.device, torch.float32)
        self.constant = {name: t.detach() for name, t in state_a.items() if name not in set(self.names)}
        self.recomputed: dict[str, Tensor] = {}  # name -> [K, *shape], in place of what is interpolated
        self.bytes_each = sum(t.numel() * t.element_size() for t in self.a)
        self.fits = self.num_points * self.bytes_each <= stacked_bytes
        self._stacks: dict[str, Tensor] = {}
        self._buffers: list[Tensor] | None = None

    def network(self, k: int) -> dict[str, Tensor]:
        """The whole state of network k; valid until the next call where the networks do not fit in memory."""
        if self.fits:
            state = {name: t[k] for name, t in self.stacks(self.names).items()}
        else:
            alpha = self.alphas[k : k + 1]
            self._buffers = lerp_stacked(self.a, self.b, alpha, self._buffers)
            state = {name: t[0] for name, t in zip(self.names, self._buffers, strict=True)}
        return {**self.constant, **state, **{name: t[k] for name, t in self.recomputed.items()}}

    def stacks(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The entries of all networks by name, [K, *shape] each; only where the networks fit in memory."""
        wanted = set(names) - set(self.recomputed) - set(self._stacks)
        chosen = [i for i, name in enumerate(self.names) if name in wanted]
        made = lerp_stacked([self.a[i] for i in chosen], [self.b[i] for i in chosen], self.alphas)
        self._stacks.update({self.names[i]: t for i, t in zip(chosen, made, strict=True)})
        known = {**self._stacks, **self.recomputed}
        return {name: known[name] for name in names}

    def recompute_statistics(self, model: nn.Module, fused: Fused | None, batches: Iterable[Batch]) -> None:
        """Estimate every normalisation layer's statistics as the mean over the batches, in their order."""
        channels_last = fused is not None and self.device.type == "cpu"
        model = fused.trainable if fused is not None else model
        layers = {name: m for name, m in model.named_modules() if _keeps_statistics(m)}
        for name, layer in layers.items():
            for buffer, start in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0)):
                tensor = getattr(layer, buffer)
                self.recomputed[f"{name}.{buffer}"] = torch.full(
                    (self.num_points, *tensor.shape), start, dtype=tensor.dtype, device=self.device
                )
        momenta = {layer: layer.momentum for layer in layers.values()}
        seen = False
        try:
            for layer in momenta:
                layer.train()
                layer.momentum = None  # the mean over all batches instead of a decaying one
            for images, _ in batches:
                seen = True
                with torch.inference_mode():
                    x = images.to(self.device)
                    if channels_last and x.dim() == 4:
                        x = x.contiguous(memory_format=torch.channels_last)
                    for k in range(self.num_points):
                        functional_call(model, self.network(k), (x,))
        finally:
            for layer, momentum in momenta.items():
                layer.momentum = momentum
                layer.eval()
        if not seen:
            raise ValueError("statistics_batches holds no batch; give at least one")


def _forward(model: nn.Module, line: _Line, fused: Fused | None, method: str) -> Callable[[Tensor], Tensor]:
    """The evaluation of one batch [B, ...] by all networks, to logits [K, B, C]."""
    if method == "auto":
        small = line.fits and line.bytes_each <= _FILLS_A_GPU
        method = "stacked" if line.device.type == "cuda" and small else "fused" if fused else "each"
    if method == "fused":
        if fused is None:
            raise ValueError("method is 'fused', but the model cannot be traced and fused; use 'auto'")
        return _FusedForward(line, fused)
    if method == "stacked":
        if not line.fits:
            raise ValueError("method is 'stacked', but the networks need more than stacked_bytes; use 'auto'")
        return lambda x: torch.vmap(lambda s: functional_call(model, {**line.constant, **s}, (x,)))(
            line.stacks(line.names)
        )
    if method == "each":
        networks = range(line.num_points)
        return lambda x: torch.stack([functional_call(model, line.network(k), (x,)) for k in networks])
    raise ValueError(f"method is {method!r}, expected 'auto', 'fused', 'stacked' or 'each'")


class _FusedForward:
    """All networks of a line on one fused graph."""

    def __init__(self, line: _Line, fused: Fused) -> None:
        self.line = line
        self.fused = fused
        self.stacks: _Weights | None = None
        if line.fits:
            with torch.inference_mode():
                self.stacks = self._weights(line.stacks(fused.names))
        a, b = (dict(zip(line.names, end, strict=True)) for end in (line.a, line.b))
        self.ends = [
            [(end[f"{linear.name}.weight"], end.get(f"{linear.name}.bias")) for end in (a, b)]
            for linear in fused.linears
        ]

    def __call__(self, images: Tensor) -> Tensor:
        if images.dim() == 4 and images.device.type == "cpu":
            images = images.contiguous(memory_format=torch.channels_last)
        shared = self.fused.prefix(images)
        split = len(shared) - len(self.ends)
        hidden = [(F.linear(x, *a), F.linear(x, *b)) for x, (a, b) in zip(shared[split:], self.ends, strict=True)]
        constants = [self.line.constant[name] for name in self.fused.constants]
        logits: Tensor | None = None
        if self.stacks is not None:
            outputs = self._shared_outputs(hidden, self.line.alphas, self.stacks)
        for k in range(self.line.num_points):
            weights, row = self.stacks, k
            if weights is None:
                network = self.line.network(k)
                weights = self._weights({n: t[None] for n, t in network.items() if t.is_floating_point()})
                row = 0
                outputs = self._shared_outputs(hidden, self.line.alphas[k : k + 1], weights)
            own = self.fused.body(
                *shared[:split],
                *(t[row] for t in outputs),
                *constants,
                *(t[row] for t in weights.arguments),
            )
            if logits is None:
                logits = own.new_empty(self.line.num_points, *own.shape)
            logits[k] = own
        assert logits is not None
        return logits

    def _weights(self, states: dict[str, Tensor]) -> _Weights:
        seconds = [linear.second.make(states) if linear.second else None for linear in self.fused.linears]
        return _Weights(self.fused.stack(states), seconds)

    def _shared_outputs(self, hidden: list[tuple[Tensor, Tensor]], alphas: Tensor, weights: _Weights) -> list[Tensor]:
        """What each shared linear layer hands to the body, [K, B, N], from its pre-activations at both ends."""
        outputs = []
        for linear, (a, b), second in zip(self.fused.linears, hidden, weights.seconds, strict=True):
            if linear.second is not None and second is not None:
                out = lerp_linear(a, b, alphas, *second, rectified=linear.second.rectified)
                outputs.append(out[..., : linear.second.num_outputs])
            else:
                outputs.append(lerp_relu(a, b, alphas) if linear.rectified else lerp_stacked([a], [b], alphas)[0])
        return outputs


class _Weights(NamedTuple):
    """What networks add to the fused graph, all of them or one, stacked."""

    arguments: list[Tensor]  # of the body
    seconds: list[tuple[Tensor, Tensor] | None]  # weight [K, H, N] and bias [K, N] behind each shared linear layer


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats


def _chunk(line: _Line, fused: Fused | None) -> int:
    """Images evaluated at a time."""
    if line.device.type != "cpu":
        return _CHUNK_CUDA
    planes = fused is None or fused.has_convolution
    return (_CHUNK_PLANES if planes else _CHUNK_VECTORS) * torch.get_num_threads()


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for m, training in modes.items():
            m.training = training
