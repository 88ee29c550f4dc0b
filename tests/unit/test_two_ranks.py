"""Two processes of one training: what they sum, gather and agree on, and the gradients that they average."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lthbench.training.distributed import Ranks

CPU = torch.device("cpu")


def on_both(folder: Path, work: Callable[[Ranks], None]) -> None:
    """Do some work on two ranks, this process and a fork of it."""

    def take_part(rank: int) -> None:
        dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), 2), rank=rank, world_size=2)
        try:
            work(Ranks(rank, 2))
        finally:
            dist.destroy_process_group()

    child = os.fork()
    if child == 0:
        try:
            take_part(1)
        except BaseException:
            os._exit(1)
        os._exit(0)
    try:
        take_part(0)
    finally:
        _, status = os.waitpid(child, 0)
    assert status == 0, "the other process failed"


def test_sums_and_collections_are_the_same_on_both_ranks(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        t = torch.tensor([1.0, 10.0]) * (1 + ranks.rank)
        assert ranks.all_gather(t).tolist() == [[1, 10], [2, 20]]
        assert ranks.all_reduce_sum(t) is t and t.tolist() == [3, 30]

    on_both(tmp_path, work)


def test_a_value_that_differs_is_reported_with_the_process_that_has_it(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        ranks.assert_identical("the seed", "0", CPU)
        with pytest.raises(RuntimeError, match=r"the seed differs .* \(of process 1 from process 0\)"):
            ranks.assert_identical("the seed", str(ranks.rank), CPU)

    on_both(tmp_path, work)


def test_gradients_are_averaged_once_however_many_passes_a_step_has(tmp_path: Path) -> None:
    def work(ranks: Ranks) -> None:
        model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Dropout(0.5)).train()
        model[0].weight.data.fill_(1.0)
        wrapped = ranks.wrap(model, torch.ones(1, 2))
        assert isinstance(wrapped, DistributedDataParallel) and model.training and wrapped.training
        assert model[0].weight.grad is None and model[0].weight.tolist() == [[1, 1]]
        wrapped.eval()
        x = torch.tensor([[1.0, 0.0]]) * (1 + ranks.rank)
        with ranks.no_sync(wrapped):
            wrapped(x).sum().backward()
        assert model[0].weight.grad is not None and model[0].weight.grad.tolist() == x.tolist(), "its own so far"
        wrapped(2 * x).sum().backward()
        assert model[0].weight.grad.tolist() == [[(3 + 6) / 2, 0]]
        with ranks.no_sync(model):  # nothing to hold back
            model(x).sum().backward()

    importlib.import_module("torch._dynamo")  # which DistributedDataParallel wants: once, before the fork
    on_both(tmp_path, work)
