"""Trainings in processes of their own that wait while another one is measured."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch


@dataclass(frozen=True)
class Rate:
    """What one contestant did in its turn.

    Attributes:
        images_per_second: of all its processes together.
        cpu_seconds: that an image took, user and system, all threads of its process.
        cores: that it kept busy.
        undisturbed: images per second at the fastest step of each process, an estimate for an idle machine.
    """

    images_per_second: float
    cpu_seconds: float
    cores: float
    undisturbed: float


class Contestant:
    """`num_processes` equal trainings at once, `num_threads` each; they train only during `turn`.

    Args:
        make: called in each process, must be importable; gives the function that does one training step and
            returns how many images it had.
        start: the processes are started inside this context.
        warm_up: steps before the first turn.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[], int]],
        num_processes: int,
        num_threads: int,
        start: Callable[[], AbstractContextManager[None]] = nullcontext,
        warm_up: int = 5,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(num_processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, num_threads, warm_up), daemon=True)
            with start():
                process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)
        for end in self._ends:
            end.recv_bytes()

    def turn(self, seconds: float) -> Rate:
        """Let all processes train for about so long, and sum up."""
        for end in self._ends:
            end.send_bytes(repr(seconds).encode())
        reports = [tuple(map(float, end.recv_bytes().split())) for end in self._ends]
        images, cpu = sum(r[0] for r in reports), sum(r[2] for r in reports)
        return Rate(
            images_per_second=sum(images / wall for images, wall, _, _ in reports),
            cpu_seconds=cpu / images,
            cores=sum(cpu / wall for _, wall, cpu, _ in reports),
            undisturbed=sum(fastest for _, _, _, fastest in reports),
        )

    def close(self) -> None:
        """End the processes."""
        for end, process in zip(self._ends, self._processes, strict=True):
            end.close()
            process.join()


def _serve(pipe: Connection, make: Callable[[], Callable[[], int]], num_threads: int, warm_up: int) -> None:
    torch.set_num_threads(num_threads)
    step = make()
    for _ in range(warm_up):
        step()
    pipe.send_bytes(b"ready")
    while True:
        try:
            seconds = float(pipe.recv_bytes())
        except EOFError:
            return
        images, fastest, begin, cpu = 0, 0.0, time.perf_counter(), time.process_time()
        now = begin
        while now - begin < seconds:
            batch, before = step(), now
            now = time.perf_counter()
            images, fastest = images + batch, max(fastest, batch / (now - before))
        pipe.send_bytes(f"{images} {now - begin} {time.process_time() - cpu} {fastest}".encode())
