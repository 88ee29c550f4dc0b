"""Running tasks in one process: hold the lease of the folder, do the work, write the result last."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lthbench.data.own_sets import know_own_sets
from lthbench.documents import DocumentError
from lthbench.lease import Lease, LeaseLostError
from lthbench.ops._library import why_not_these_kernels
from lthbench.plugins import load_plugins
from lthbench.runner.device import DeviceLostError, device_of_rank, is_lost, within_memory
from lthbench.runner.environment import environment, make_deterministic
from lthbench.runner.process_group import Leader
from lthbench.runner.settings import Settings
from lthbench.tasks.atomic import write_atomically, write_json
from lthbench.tasks.checkpoint import UnfitError, check_checkpoint
from lthbench.tasks.context import Context, UnusableInputError
from lthbench.tasks.paths import (
    CHECKPOINT,
    DAMAGED,
    ENDED,
    FAILURE,
    LEASE,
    LOST,
    RESULT,
    SPEC,
    STALLED,
    TICKETS,
    WITHDRAWN,
)
from lthbench.tasks.result import read_result
from lthbench.tasks.run import run_task
from lthbench.tasks.scratch import Scratch
from lthbench.tasks.spec import TrainSpec, parse_spec
from lthbench.tasks.store import Store, is_about_the_disk, unusable

Asked = Callable[[], Literal["save", "stop"] | None]
_REPORT_EVERY = 0.5  # seconds


def _print(text: str) -> None:
    print(text, flush=True)


class Worker:
    """Runs tasks one after another in this process.

    Args:
        asked: what a running training is asked to do (Context.asked).
        tell: called with notes for the user beside results: damaged files, a lost lease.
        waits: called repeatedly while another process holds the task.

    Raises:
        RuntimeError: the kernels were built from other sources than those beside the package.
        PluginError: a plugin cannot be loaded.
    """

    def __init__(
        self,
        settings: Settings,
        asked: Asked = lambda: None,
        tell: Callable[[str], None] = _print,
        waits: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        load_plugins(settings.plugins, exactly=True)
        know_own_sets(settings.data)
        if reason := why_not_these_kernels(settings.device):
            raise RuntimeError(reason)
        self.store = Store(settings.store, tell)
        self.device = device_of_rank(settings.device)
        self.leader = Leader(settings)
        self.asked, self.tell, self.waits = asked, tell, waits
        make_deterministic(settings.threads)

    def close(self) -> None:
        """End the processes that worked with this one."""
        self.leader.close()

    def run(self, key: str, spec: str, keep: frozenset[int], report: Callable[[int, int], None]) -> dict[str, Any]:
        """Run the task of a canonical specification unless it is done, and return its result.

        If another process runs the same task, wait for it and return its result.

        Raises:
            StoreError: the disk is full or read-only, which would fail any other task too.
            UnusableInputError: another task has to be computed again first; what is damaged of it is set aside.
            DeviceLostError: this process can do no task on its GPU any more.
            DeviceMemoryError: the GPU's memory does not suffice for the task.
        """
        folder = self.store.folder(key)
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with Lease(folder / LEASE, waits=self.waits) as lease, Scratch(folder, lease) as scratch:
                    if self.store.is_done(key, keep) and (result := self.store.result(key)) is not None:
                        _tidy_up(scratch)
                        return result
                    try:
                        return self._run(key, spec, keep, report, lease, scratch)
                    except Exception as error:
                        lease.check()  # without it nothing could be written, which is no fault of the task
                        if is_lost(self.device):
                            raise self._lost(folder, error, scratch.path) from error
                        raise
            except LeaseLostError as error:
                self.tell(f"{error} Nothing of this process was written since; the other's result is waited for")
            except UnusableInputError as error:
                self.tell(f"{error}; task {key} waits until it is computed again")
                if self.store.folder(error.key).exists():
                    self.store.set_aside(error.key, self.tell, wait=True)
                raise
            except OSError as error:
                if is_about_the_disk(error):
                    raise unusable(folder, error) from error
                # `lthbench gc` took the folder away before the lease was had: it is made again.
                if not isinstance(error, FileNotFoundError) or folder.exists():
                    raise

    def _run(
        self,
        key: str,
        spec: str,
        keep: frozenset[int],
        report: Callable[[int, int], None],
        lease: Lease,
        scratch: Scratch,
    ) -> dict[str, Any]:
        folder, parsed = self.store.folder(key), parse_spec(spec)
        reports = _Reports(lease, report)
        here = environment(self.device) | {"compile": self.settings.compile, "processes": self.leader.size}
        (folder / STALLED).unlink(missing_ok=True)
        scratch.rename(RESULT, WITHDRAWN)  # what it says of files will not hold any more
        keep |= _kept_before(folder, key)
        write_atomically(folder / SPEC, spec.encode(), scratch.path)
        if isinstance(parsed, TrainSpec) and (folder / CHECKPOINT).exists():
            self._take_up(scratch, parsed, keep, here)
        with self.leader.training(key, spec) as ranks:
            context = Context(
                folder=folder,
                folder_of=self.store.folder,
                keep=keep,
                device=self.device,
                data=self.settings.data,
                report=reports.report,
                sign=reports.sign,
                checkpoint_every=self.settings.checkpoint_every,
                compile=self.settings.compile,
                graphs=self.settings.graphs,
                tell=self.tell,
                asked=self.asked,
                ranks=ranks,
                scratch=scratch.path,
                tickets=self.store.root / TICKETS,
                environment=here,
            )
            if ranks.size == 1:
                frugal = replace(context, graphs=False)  # a graph keeps the memory of all its activations
                result = within_memory(partial(run_task, parsed, context), partial(run_task, parsed, frugal), self.tell)
            else:  # the others would not begin again
                result = run_task(parsed, context)
        lease.check()
        write_json(folder / RESULT, result, scratch.path)
        _tidy_up(scratch)
        return result

    def _lost(self, folder: Path, error: Exception, scratch: Path) -> DeviceLostError:
        """The error to raise if a task ended with a lost GPU, which is recorded in its folder."""
        before = (folder / LOST).exists()
        write_atomically(folder / LOST, str(error).encode(), scratch)
        return DeviceLostError(
            f"{self.device} was lost: {str(error).strip().splitlines()[0]}. Nothing more can be computed on it in this "
            f"process; the task {'had lost it before' if before else 'goes on in another'}",
            try_again=not before,
        )

    def _take_up(
        self, scratch: Scratch, spec: TrainSpec, keep: frozenset[int], here: Mapping[str, str | int | bool]
    ) -> None:
        """Keep only a checkpoint from which the training can continue; else it starts over."""
        try:
            check_checkpoint(scratch.folder, spec, keep, here)
        except DocumentError as error:
            self.tell(f"{error}; it is set aside, and the training starts over")
            scratch.rename(CHECKPOINT, CHECKPOINT + DAMAGED)
        except UnfitError as error:
            self.tell(f"{error}; the training starts over")
            scratch.remove(CHECKPOINT)


class _Reports:
    """Passes progress on: the first two signs, which show the pace, then one every half second."""

    def __init__(self, lease: Lease, send: Callable[[int, int], None]) -> None:
        self._lease, self._send = lease, send
        self._at, self._num_signs, self._last = (0, 1), 0, 0.0

    def report(self, done: int, total: int) -> None:
        """As for `Context`."""
        self._at = done, total
        self.sign()

    def sign(self) -> None:
        """As for `Context`."""
        if self._lease.lost:
            self._lease.check()
        self._num_signs += 1
        now = time.monotonic()
        if self._num_signs <= 2 or now - self._last > _REPORT_EVERY:
            self._last = now
            self._send(*self._at)


def _tidy_up(scratch: Scratch) -> None:
    """Delete files that a finished task no longer needs, left by this process or an earlier one."""
    for name in (CHECKPOINT, FAILURE, WITHDRAWN, LOST, ENDED):
        scratch.remove(name)


def _kept_before(folder: Path, key: str) -> frozenset[int]:
    """The steps kept by a withdrawn result of a task, which other suites may need."""
    try:
        names = read_result(folder, key, WITHDRAWN)["artefacts"]
    except (DocumentError, FileNotFoundError):
        return frozenset()
    steps = (re.fullmatch(r"weights-(\d+)\.safetensors", name) for name in names)
    return frozenset(int(step[1]) for step in steps if step)
