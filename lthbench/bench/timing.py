"""How the kernels are timed: candidates interleaved in one process, beside probes of the machine's limits.

Ratios of medians are quoted, since absolute times on a shared machine drift; interleaving (A B A B) lets every
candidate see the same drift.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lthbench.ops._fake import shape_only
from lthbench.ops._library import kernels_available


class BenchRow(NamedTuple):
    """One line of a benchmark table: ours against a baseline, and a limit of the machine beside them.

    ``ratio`` is baseline / ours (larger is better); ``of_limit`` is limit / ours (1 is the machine's limit).
    """

    work: str
    threads: int
    ours_ms: float
    baseline: str
    baseline_ms: float
    ratio: float
    limit: str = ""
    limit_ms: float = float("nan")
    of_limit: float = float("nan")


@dataclass(frozen=True)
class Work:
    """Some work that ours and the usual ways do, beside the least time that this machine takes for it.

    Attributes:
        name: what and of which size, as `masked SGD, resnet50`.
        ours, baselines: name -> a call that does it once.
        limit: name -> a call that moves the same bytes, or computes as many operations, and does nothing else.
        num_bytes: that it reads and writes at least; None where operations limit it.
        repeats: calls in one turn, of a network that fits the caches.
        only_best: whether the fastest baseline alone gets a row.
        check: raises AssertionError where ours and the baselines disagree.
    """

    name: str
    ours: Mapping[str, Callable[[], object]]
    baselines: Mapping[str, Callable[[], object]]
    limit: Mapping[str, Callable[[], object]] = field(default_factory=dict)
    num_bytes: float | None = None
    repeats: int = 1
    only_best: bool = False
    check: Callable[[], None] = lambda: None

    @property
    def calls(self) -> dict[str, Callable[[], object]]:
        """All of them, ours first."""
        return {**self.ours, **self.baselines, **self.limit}

    def seconds(self, rounds: int, device: torch.device | str = "cpu") -> dict[str, float]:
        """Median seconds of each call, interleaved."""
        return interleaved(self.calls, rounds, repeats=self.repeats, device=device)

    def rows(self, rounds: int, device: torch.device | str = "cpu") -> list[BenchRow]:
        """A table line for each of ours and each baseline, measured now."""
        self.check()
        seconds = self.seconds(rounds, device)
        ms = {name: 1e3 * each for name, each in seconds.items()}
        best = min(self.baselines, key=lambda name: seconds[name])
        limit = next(iter(self.limit), "")
        limit_ms = ms[limit] if limit else float("nan")
        several = len(self.ours) > 1
        return [
            BenchRow(
                f"{self.name}, {ours}" if several and ours != "ours" else self.name, torch.get_num_threads(), ms[ours],
                baseline, ms[baseline], ms[baseline] / ms[ours], limit, limit_ms, limit_ms / ms[ours],
            )
            for ours in self.ours
            for baseline in ([best] if self.only_best else self.baselines)
        ]  # fmt: skip


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 9,
    *,
    repeats: int = 1,
    before: Callable[[], object] | None = None,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Median seconds of each candidate; every round runs each once, in order, after one round of warm-up.

    Args:
        candidates: name -> a call that does the work once.
        rounds: timed rounds.
        repeats: calls in one turn; with more than one, each finds its data where the last left it (warm), and the
            turn starts with an untimed call.
        before: called untimed before each candidate.
        device: on CUDA, times are those of events around the call.

    On the CPU with one thread the clock is the process's own, so that other processes' turns are not counted; with
    more it is the wall clock, which is meaningful only on an idle machine.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    on_cuda = torch.device(device).type == "cuda"
    timed = partial(_cuda_seconds, torch.device(device)) if on_cuda else partial(_seconds, clock)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for round_ in range(rounds + 1):
            for name, call in candidates.items():
                if before is not None:
                    before()
                if repeats > 1:
                    call()
                seconds = timed(partial(_repeat, call, repeats)) / repeats
                if round_:
                    times[name].append(seconds)
    finally:
        if collecting:
            gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


def _repeat(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def _seconds(clock: Callable[[], float], call: Callable[[], object]) -> float:
    start = clock()
    call()
    return clock() - start


def _cuda_seconds(device: torch.device, call: Callable[[], object]) -> float:
    with torch.cuda.device(device):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        end.synchronize()
    return start.elapsed_time(end) / 1e3


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run the block with this many torch threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_probe(num_weights: int) -> Callable[[], object]:
    """One read of that many float32: the limit of a threshold."""
    words = torch.ones(num_weights, dtype=torch.int32)  # zeros would share one page of memory
    if kernels_available("cpu"):
        return lambda: torch.ops.lthbench.probe_read(words)
    return words.sum


PROBE_BYTES = 24  # a weight, of update_probe


def update_probe(num_weights: int) -> Callable[[], object]:
    """Four reads and two writes in place of that many float32: the limit of a masked SGD step with anchors."""
    a, b, c, d = (torch.ones(num_weights) for _ in range(4))
    if kernels_available("cpu"):
        return lambda: torch.ops.lthbench.probe_update_(a, b, c, d)
    return lambda: (a.add_(c), b.add_(d))


def matmul_probe(
    size: int = 1024, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[Callable[[], Tensor], float]:
    """A product of [size, size] matrices, the limit of all that multiplies, and its operations."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right, 2.0 * size**3


def arithmetic_limit(operations: float, device: torch.device | str = "cpu") -> dict[str, Callable[[], object]]:
    """The limit of what multiplies: so many float32 operations, by name.

    On the CPU multiply-adds in registers, since torch's matrix product is far from that on some processors; a matrix
    product elsewhere, or where there are no kernels.
    """
    if torch.device(device).type == "cpu" and kernels_available("cpu"):
        start = torch.ones(1)
        rounds = round(1000 * operations / float(torch.ops.lthbench.probe_fma(start, 1000)[0]))
        return {"limit: multiply-adds": lambda: torch.ops.lthbench.probe_fma(start, max(1, rounds))}
    product, of_one = matmul_probe(1024 if torch.device(device).type == "cpu" else 4096, device=device)
    times = max(1, round(operations / of_one))
    return {"limit: matrix product": lambda: _repeat(product, times)}


def table(rows: list[BenchRow]) -> str:
    """The rows as aligned text."""
    head = ["work", "threads", "ours ms", "baseline", "baseline ms", "ratio", "limit", "limit ms", "of limit"]
    cells = [head] + [[c if isinstance(c, str) else f"{c:.4g}" for c in r] for r in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


@shape_only("probe_read")
def _probe_read_shape(words: Tensor) -> Tensor:
    return words.new_empty((), dtype=torch.int64)


@shape_only("probe_fma")
def _probe_fma_shape(start: Tensor, rounds: int) -> Tensor:
    return start.new_empty(2, dtype=torch.float64)


@shape_only("probe_update_")
def _probe_update_shape(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> None:
    pass
