"""Ranks: the processes that train one network together, each on its part of every batch."""

from __future__ import annotations

import hashlib
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """This process among those that make one training; all have joined torch's default process group.

    Attributes:
        rank: 0 leads: it alone writes files.
        size: how many processes there are; 1 needs no process group.
    """

    rank: int = 0
    size: int = 1

    def shard(self, begin: int, end: int) -> slice:
        """The positions [begin, end) of a batch that are this rank's; shards differ by at most one image."""
        length = end - begin
        return slice(begin + self.rank * length // self.size, begin + (self.rank + 1) * length // self.size)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over the ranks, the same bits on each, and return it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors [...] of all ranks, [size, ...]."""
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(gathered, tensor)
        return torch.stack(gathered)

    def assert_identical(self, what: str, value: str, device: torch.device) -> None:
        """Check that a value is the same on all ranks.

        Raises:
            RuntimeError: a rank's value differs from rank 0's; the message calls it `what`.
        """
        if self.size == 1:
            return
        hashed = torch.frombuffer(bytearray(hashlib.sha256(value.encode()).digest()), dtype=torch.uint8)
        everyones = self.all_gather(hashed.to(device))
        if others := [rank for rank in range(self.size) if not torch.equal(everyones[rank], everyones[0])]:
            raise RuntimeError(
                f"{what} differs between processes of one training (of process {', '.join(map(str, others))} from "
                "process 0): they must run the same versions on the same kind of device and see the same store"
            )

    def wrap(self, model: nn.Module, image: Tensor) -> nn.Module:
        """The model whose backward pass averages gradients over the ranks.

        Args:
            image: float32 [1, C, H, W], any image for the model.
        """
        if self.size == 1:
            return model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its successor would sync what is the same already
            wrapped = DistributedDataParallel(
                model, broadcast_buffers=False, init_sync=False, gradient_as_bucket_view=True
            )
        # For 1x1 convolutions, whose two layouts are the same memory.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        # The first backward pass decides which gradients are summed together, and with more than two ranks that
        # decides last bits. This one, which changes nothing, goes before a new training as before a resumed one.
        was_training = model.training
        wrapped.eval()
        wrapped(image).sum().backward()
        model.zero_grad(set_to_none=True)
        wrapped.train(was_training)
        return wrapped

    def no_sync(self, wrapped: object) -> AbstractContextManager[None]:
        """A context in which a backward pass leaves its gradients to be summed by a later one."""
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()
