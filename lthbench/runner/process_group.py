"""Several processes per training: how they meet, how rank 0 leads, and how the others follow.

Every process of such a group has torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).
Either torchrun or Slurm starts them all, on one machine or on several, and each calls `join` first; or there is one
process only, whose `Leader` starts the others on this machine. Rank 0 does everything as if it were alone, and
announces each training; the others take part in it, and write nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from lthbench.data.own_sets import know_own_sets
from lthbench.plugins import load_plugins
from lthbench.runner.allocator import kept_memory
from lthbench.runner.device import DeviceLostError, device_of_rank
from lthbench.runner.environment import make_deterministic
from lthbench.runner.settings import Settings, num_ranks
from lthbench.tasks.context import Context, Refused, UnusableInputError
from lthbench.tasks.spec import TrainSpec, parse_spec
from lthbench.tasks.store import Store
from lthbench.tasks.train import join_training
from lthbench.training.distributed import Ranks

# Between trainings the others wait for rank 0, which may evaluate, prune or have nothing to do for long.
_PATIENCE = timedelta(days=365)
# The counter, in the store at which processes meet, of those that a leader started and that have arrived.
_HERE = "lthbench.here"


def join(settings: Settings) -> bool:
    """Meet the other processes that torchrun or Slurm's launcher started, on GPU LOCAL_RANK where device is cuda.

    Returns whether this process leads: it then runs tasks in this process (a `Worker`, or `run_plan` without
    workers). The others take part in its trainings here, until it ends.
    """
    if num_ranks() == 1:
        return True
    rank = int(os.environ["RANK"])
    device = _meet(settings, rank, num_ranks(), None)
    # gloo's threads must not outlive the interpreter, or the process aborts at its end.
    atexit.register(_part)
    if rank > 0:
        _follow(settings, device, Ranks(rank, num_ranks()))
    return rank == 0


def _meet(settings: Settings, rank: int, size: int, store: dist.Store | None) -> torch.device:
    """Join torch's process group, at a store or else at MASTER_ADDR; return this process's device."""
    make_deterministic(settings.threads)
    device = device_of_rank(settings.device)
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    if store is None:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(minutes=30)))
    elif rank > 0:
        store.add(_HERE, 1)
    dist.init_process_group(backend, timeout=_PATIENCE, store=store, rank=rank, world_size=size)
    return device


def _announce(message: dict[str, Any]) -> None:
    content = torch.frombuffer(bytearray(json.dumps(message).encode()), dtype=torch.uint8)
    dist.broadcast(torch.tensor([len(content)]), 0)
    dist.broadcast(content, 0)


def _hear() -> dict[str, Any]:
    length = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(length, 0)
    content = torch.empty(int(length), dtype=torch.uint8)
    dist.broadcast(content, 0)
    message: dict[str, Any] = json.loads(content.numpy().tobytes())
    return message


class Leader:
    """Rank 0's side; unless torchrun or Slurm did, it starts the other ranks when a training first needs them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started_together = num_ranks() > 1
        self.size = num_ranks() if self.started_together else settings.processes
        self._followers: list[subprocess.Popen[bytes]] = []

    @contextlib.contextmanager
    def training(self, key: str, spec: str) -> Iterator[Ranks]:
        """The ranks that run the task of a canonical specification: all if it trains by gradients, or rank 0 alone.

        Raises:
            RuntimeError: another process ended; the next training starts new ones.
            DeviceLostError: this process cannot start them, and has lost them before.
        """
        parsed = parse_spec(spec)
        if self.size == 1 or not (isinstance(parsed, TrainSpec) and parsed.probe in (None, "affine")):
            yield Ranks()
            return
        if self.started_together and not dist.is_initialized():
            # After one of them ended, or another process took a task over from this one.
            raise DeviceLostError(
                "the processes that were started together are no longer connected: started anew, they go on from here",
                try_again=True,
            )
        try:
            if not dist.is_initialized():
                self._start()
            _announce({"key": key, "spec": spec})
            yield Ranks(0, self.size)
        except UnusableInputError:  # before the first step, and the others found the same
            raise
        except Exception as error:
            reason = self._end()
            if reason is None or not isinstance(error, RuntimeError):  # what torch raises where a process is gone
                raise
            raise RuntimeError(f"{reason} (here: {error})") from error

    def _start(self) -> None:
        """Start the other ranks on this machine; each ends when this process does."""
        store = dist.TCPStore("127.0.0.1", 0, self.size, is_master=True, wait_for_workers=False)
        command = [sys.executable, "-m", "lthbench.runner.process_group", self.settings.dumps()]
        for rank in range(1, self.size):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.size, "MASTER_PORT": store.port}
            with kept_memory():
                environment = os.environ | {name: str(value) for name, value in place.items()}
                self._followers.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))
        while store.add(_HERE, 0) < self.size - 1:
            if any(process.poll() is not None for process in self._followers):
                raise RuntimeError("a process ended before the training began")
            time.sleep(0.05)
        device = _meet(self.settings, 0, self.size, store)
        if device.type == "cuda":  # NCCL, unlike gloo, would wait for a process that has ended
            for process in self._followers:
                threading.Thread(target=self._end_with, args=(process,), daemon=True).start()

    def _end_with(self, follower: subprocess.Popen[bytes]) -> None:
        follower.wait()
        if follower in self._followers:
            sys.stderr.write(f"lthbench: process {self._followers.index(follower) + 1} of a training ended\n")
            os._exit(1)

    def _end(self) -> str | None:
        """Destroy the group; return which processes had ended by themselves."""
        ended: dict[int, int] = {}
        deadline = time.monotonic() + 2
        while self._followers and not ended and time.monotonic() < deadline:
            time.sleep(0.2)
            codes = {rank: process.poll() for rank, process in enumerate(self._followers, 1)}
            ended = {rank: code for rank, code in codes.items() if code is not None}
        self._break_up()
        if not ended:
            return None
        told = ", ".join(f"{rank} with code {code}" for rank, code in ended.items())
        return f"of the {self.size} processes at this training ended: {told}; their output is above"

    def close(self) -> None:
        """End the processes that were started here."""
        if self._followers:
            self._break_up()

    def _break_up(self) -> None:
        followers, self._followers = self._followers, []
        for process in followers:
            process.kill()
            process.wait()
        _part()


def _part() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _follow(settings: Settings, device: torch.device, ranks: Ranks) -> None:
    """Take part in each training that rank 0 announces, until rank 0 ends."""
    load_plugins(settings.plugins, exactly=True)
    know_own_sets(settings.data)
    store = Store(settings.store)
    while True:
        try:
            message = _hear()
        except RuntimeError:  # the connection to rank 0 is closed
            return
        folder = store.folder(message["key"])
        context = Context(folder, store.folder, device=device, data=settings.data, ranks=ranks)
        spec = parse_spec(message["spec"])
        assert isinstance(spec, TrainSpec)
        # Rank 0 finds the same, and says so.
        with contextlib.suppress(Refused, UnusableInputError):
            join_training(spec, context)


def _main() -> None:
    """The main function of a process that a Leader started; it ends when the leader does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end_with_leader() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=end_with_leader, daemon=True).start()
    settings, rank, size = Settings.loads(sys.argv[1]), int(os.environ["RANK"]), num_ranks()
    store = dist.TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), size)
    _follow(settings, _meet(settings, rank, size, store), Ranks(rank, size))


if __name__ == "__main__":
    _main()
