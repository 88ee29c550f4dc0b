"""A masked SGD step against torch.optim and mask products, beside a bandwidth probe (pytest --benchmark-enable)."""

from __future__ import annotations

import pytest

from lthbench.bench.kernels import training_step
from lthbench.bench.optimizer_speed import ours, update_rows
from lthbench.bench.timing import table, threads


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("network", ["resnet20", "resnet18", "resnet50"])
def test_a_masked_step(network, num_threads, benchmark, capsys):
    if not benchmark.enabled and network != "resnet20":
        pytest.skip("a large network; --benchmark-enable measures it")
    with threads(num_threads):
        rows = update_rows(network, rounds=15 if benchmark.enabled else 1)
        benchmark.extra_info["rows"] = [r._asdict() for r in rows]
        benchmark.pedantic(ours(network, full=False), rounds=5, warmup_rounds=1)
    with capsys.disabled():
        print("\n" + table(rows))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_training_step_of_lenet(num_threads, benchmark, capsys):
    with threads(num_threads):
        rows = [benchmark.pedantic(training_step, (60, 15 if benchmark.enabled else 1), rounds=1)]
        benchmark.extra_info["rows"] = [r._asdict() for r in rows]
    with capsys.disabled():
        print("\n" + table(rows))
