"""Ranks in threads of one process: their parts of a batch, and normalisation over all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from lthbench.training.distributed import Ranks
from lthbench.training.sync_batchnorm import SyncBatchNorm2d, convert_sync_batchnorm, count_batches_on_host


@dataclass
class Meeting:
    """Where so many threads exchange tensors."""

    size: int
    tensors: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=300)

    def exchange(self, rank: int, tensor: Tensor) -> Tensor:
        self.tensors[rank] = tensor.clone()
        self.barrier.wait()
        everyones = torch.stack([self.tensors[r] for r in range(self.size)])
        self.barrier.wait()
        return everyones


@dataclass(frozen=True)
class Threads(Ranks):
    """A rank that is a thread."""

    meeting: Meeting | None = None

    def all_gather(self, tensor: Tensor) -> Tensor:
        assert self.meeting is not None
        return self.meeting.exchange(self.rank, tensor)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        return tensor.copy_(self.all_gather(tensor).sum(0))


def on_ranks(size: int, work: Callable[[Threads], None]) -> None:
    """Do some work on ranks that are threads."""
    meeting = Meeting(size)
    threads = [threading.Thread(target=work, args=(Threads(r, size, meeting),)) for r in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize(("begin", "end"), [(0, 12), (0, 7), (4, 11), (3, 5), (2, 2)])
def test_the_parts_of_the_ranks_are_a_batch_in_order_and_of_nearly_equal_size(size: int, begin: int, end: int) -> None:
    places = torch.arange(20)
    parts = [places[Ranks(rank, size).shard(begin, end)] for rank in range(size)]
    assert torch.cat(parts).tolist() == list(range(begin, end))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_rank_adds_and_agrees_with_itself_without_a_process_group() -> None:
    t = torch.ones(3)
    assert Ranks().all_reduce_sum(t) is t and t.tolist() == [1, 1, 1]
    Ranks().assert_identical("a thing", "value", torch.device("cpu"))
    model = nn.Linear(2, 2)
    assert Ranks().wrap(model, torch.zeros(1, 2)) is model


def normalisation() -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(3, momentum=0.3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
    return layer


@pytest.mark.parametrize("sizes", [(4, 2), (1, 5), (3, 0), (1, 0)])
def test_normalisation_over_ranks_is_that_of_the_whole_batch(sizes: tuple[int, int]) -> None:
    """Outputs, gradients and running statistics; a rank may have no image."""
    chance = torch.Generator().manual_seed(0)
    x = 1 + 2 * torch.randn(sum(sizes), 3, 2, 4, generator=chance, dtype=torch.float64)
    dy = torch.randn(x.shape, generator=chance, dtype=torch.float64)
    whole, inputs = normalisation(), x.clone().requires_grad_()
    expected = whole(inputs)
    expected.backward(dy)
    parts, gradients = x.split(sizes), dy.split(sizes)
    found: dict[int, tuple[Tensor, Tensor, nn.Module]] = {}

    def work(rank: Threads) -> None:
        model = nn.Sequential(normalisation())
        convert_sync_batchnorm(model, rank)
        own = parts[rank.rank].clone().requires_grad_()
        y = model(own)
        y.backward(gradients[rank.rank])
        assert own.grad is not None
        found[rank.rank] = (y.detach(), own.grad, model[0])

    on_ranks(2, work)
    layers = [found[rank][2] for rank in range(2)]
    torch.testing.assert_close(torch.cat([found[rank][0] for rank in range(2)]), expected.detach())
    torch.testing.assert_close(torch.cat([found[rank][1] for rank in range(2)]), inputs.grad)
    for name in ("weight", "bias"):  # their gradients are summed over the ranks as all are
        torch.testing.assert_close(
            sum(layer.get_parameter(name).grad for layer in layers),  # type: ignore[misc]
            whole.get_parameter(name).grad,
        )
    for layer in layers:
        for name, statistic in whole.named_buffers():
            torch.testing.assert_close(layer.get_buffer(name), statistic)
        layer.eval()
        torch.testing.assert_close(layer(x), whole.eval()(x), msg="in evaluation it is the plain one")


def test_one_rank_keeps_the_plain_normalisation_and_several_replace_no_other_layer() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
    convert_sync_batchnorm(model, Ranks())
    assert type(model[0]) is nn.BatchNorm2d
    convert_sync_batchnorm(model, Ranks(0, 2))
    assert [type(module) for module in model] == [SyncBatchNorm2d, nn.Conv2d]


def test_counters_of_batches_are_kept_on_the_host() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False), nn.Linear(1, 1)).to("meta")
    count_batches_on_host(model[1:])
    with pytest.raises(NotImplementedError):  # a copy of what has no value: it was asked for
        count_batches_on_host(model)
