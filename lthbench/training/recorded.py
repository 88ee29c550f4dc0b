"""The forward and backward pass of a whole batch as a CUDA graph: one launch where small networks need hundreds.

A GPU finishes a layer of ResNet-20 before the host has launched the next. The passes, which make most launches, are
recorded; the rest is launched as before: the batch's images, the masked update (one launch, two with anchors), the
weight average and the tracking. So the update gets its learning rate as an eager one does (AdamW makes float64 factors
of it on the host, which the device would round differently), and a training has the bits of an eager one.

A graph replays fixed addresses and numbers: inputs are copied to the recorded addresses, gradients appear at theirs,
and what the host does in a pass (batch normalisation counts its batches) is done separately.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from lthbench.training.batches import MicroBatch

Passes = Callable[[MicroBatch], tuple[Tensor, Tensor]]


class RecordedPasses:
    """A recorded forward and backward pass of one part of a batch; calling it does what `passes` does.

    Making it updates the model's statistics by one more pass, and leaves its gradients undefined.

    Args:
        passes: does both on a model in training mode and returns logits and loss, which the next call overwrites.
        model: on a GPU; its parameters and buffers stay where they are in memory.
        form: an example of the parts that it will be called with.

    Raises:
        RuntimeError: the passes cannot be recorded: hooks watch them, they wait for the GPU, or its memory does not
            suffice.
    """

    def __init__(self, passes: Passes, model: nn.Module, form: MicroBatch) -> None:
        if is_watched(model):
            raise RuntimeError("hooks of its modules or weights watch the passes")
        self._inputs = MicroBatch(
            form.places,
            torch.zeros_like(form.images),
            torch.zeros_like(form.labels),
            list(map(torch.zeros_like, form.kept)),
        )
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._counters = [
            m.num_batches_tracked
            for m in model.modules()
            if isinstance(m, nn.modules.batchnorm._BatchNorm)
            and m.num_batches_tracked is not None
            and not m.num_batches_tracked.is_cuda
        ]
        device = form.images.device
        with torch.cuda.device(device):
            stream = _stream(device)
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):  # and not that of `graph` alone, which fails to leave what failed
                self._forget_gradients()
                passes(self._inputs)  # once beforehand: libraries initialise themselves, which cannot be recorded
                self._forget_gradients()
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph, stream=stream):
                    self._outputs = passes(self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
        self._gradients = [p.grad for p in self._parameters]

    def fit(self, part: MicroBatch) -> bool:
        """Whether a part has the shapes, types and memory layouts that were recorded."""
        return len(part.kept) == len(self._inputs.kept) and all(
            a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride()
            for a, b in zip(_tensors(part), _tensors(self._inputs), strict=True)
        )

    def __call__(self, part: MicroBatch) -> tuple[Tensor, Tensor]:
        """Logits and loss of a part that fits; the parameters' gradients are those of its loss."""
        for static, given in zip(_tensors(self._inputs), _tensors(part), strict=True):
            static.copy_(given)
        self._graph.replay()
        for p, gradient in zip(self._parameters, self._gradients, strict=True):
            p.grad = gradient
        if self._counters:
            torch._foreach_add_(self._counters, 1)
        return self._outputs

    def _forget_gradients(self) -> None:
        for p in self._parameters:
            p.grad = None


def is_watched(model: nn.Module) -> bool:
    """Whether a hook is called in the passes of a model: of any module, of its own, or of its parameters."""
    everywhere = (
        modules._global_forward_hooks, modules._global_forward_pre_hooks,
        modules._global_backward_hooks, modules._global_backward_pre_hooks,
    )  # fmt: skip
    own = (
        hooks
        for m in model.modules()
        for hooks in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks)
    )
    of_weights = (hooks for p in model.parameters() for hooks in (p._backward_hooks, p._post_accumulate_grad_hooks))
    return any(map(bool, (*everywhere, *own, *of_weights)))


def _tensors(part: MicroBatch) -> list[Tensor]:
    return [part.images, part.labels, *part.kept]


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """The stream that everything is recorded on: cuBLAS keeps a workspace for each stream that it ever saw."""
    return torch.cuda.Stream(device)
