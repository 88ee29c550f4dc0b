"""Each family of kernels beside its baselines and the machine's limit, a group per work and a row per way to do it.

    pytest tests/benchmarks --benchmark-only

`ratio` in a row's extra information is how many times as long as ours that way takes, measured interleaved in one
process (medians), which the rows' own times, one after the other, are not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from lthbench.bench.kernels import FAMILIES
from lthbench.bench.optimizer_speed import update_works
from lthbench.bench.timing import Work, threads

CASES = [(family, size, count) for family, sizes in FAMILIES.items() for size in sizes for count in (1, 2)]
# Without --benchmark-enable or --benchmark-only: only that each way runs, and that all agree.
SMALL = {"masked update": "resnet20", "training step": "batch 60", "threshold": "resnet20, density 1",
         "hard inputs": "resnet20", "linear path": "lenet-300-100, density 1"}  # fmt: skip
ROUNDS = 9


@lru_cache(maxsize=1)
def works(family: str, size: str, num_threads: int) -> list[Work]:
    """Works are large: those of one case at a time."""
    return FAMILIES[family][size]()


@lru_cache
def seconds_of(family: str, size: str, num_threads: int, name: str) -> dict[str, float]:
    (work,) = [work for work in works(family, size, num_threads) if work.name == name]
    return work.seconds(ROUNDS)


def names() -> list[tuple[str, str, int, str, str]]:
    """(family, size, threads, work, way) of every row, without making the large works."""
    found = []
    for family, size, count in CASES:
        for work in works(family, SMALL[family], 1):
            name = work.name.replace(SMALL[family], size)
            found += [(family, size, count, name, way) for way in work.calls]
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function is test_a_kernel:
        rows = names()
        ids = [f"{work}, {count} thread{'s'[: count > 1]}: {way}" for _, _, count, work, way in rows]
        metafunc.parametrize("family, size, num_threads, name, way", rows, ids=ids)


def test_a_kernel(family: str, size: str, num_threads: int, name: str, way: str, benchmark: Any) -> None:
    if not benchmark.enabled and (size != SMALL[family] or num_threads > 1):
        pytest.skip("a large work; --benchmark-only measures it")
    with threads(num_threads):
        (work,) = [work for work in works(family, size, num_threads) if work.name == name]
        benchmark.group = f"{work.name}, {num_threads} thread{'s'[: num_threads > 1]}"
        if benchmark.enabled:
            seconds = seconds_of(family, size, num_threads, name)
            benchmark.extra_info["ratio"] = round(seconds[way] / seconds[next(iter(work.ours))], 3)
            benchmark.extra_info["threads"] = num_threads
            if work.num_bytes is not None:
                benchmark.extra_info["bytes"] = round(work.num_bytes)
        benchmark.pedantic(work.calls[way], rounds=ROUNDS, iterations=work.repeats, warmup_rounds=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_ours_and_the_baselines_do_the_same(family: str) -> None:
    for work in works(family, SMALL[family], 1):
        work.check()
        assert work.ours and work.baselines


def test_a_networks_update_moves_the_bytes_that_are_told() -> None:
    plain, full, adamw = update_works("resnet20")
    assert plain.num_bytes is not None and full.num_bytes is not None and adamw.num_bytes is not None
    assert plain.num_bytes < full.num_bytes < adamw.num_bytes
