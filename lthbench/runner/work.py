"""Running tasks in one process: lock the folder, do the work, write the result last."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import filelock

from lthbench.runner.environment import environment, make_deterministic
from lthbench.runner.ranks import Leader, device_of_rank
from lthbench.runner.settings import Settings
from lthbench.runner.store import Store
from lthbench.tasks.context import Context
from lthbench.tasks.files import write_atomically, write_json
from lthbench.tasks.layout import FAILURE, RESULT, SPEC
from lthbench.tasks.run import run_task
from lthbench.tasks.spec import parse_spec


class Worker:
    """Runs tasks one after another in this process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.store)
        self.device = device_of_rank(settings.device)
        self.leader = Leader(settings)
        make_deterministic(settings.threads)

    def close(self) -> None:
        """End the processes that worked with this one."""
        self.leader.close()

    def run(self, key: str, spec: str, keep: frozenset[int], report: Callable[[int, int], None]) -> dict[str, Any]:
        """Run the task of a canonical specification unless it is done, and return its result.

        Another process at the same task is waited for; its result is then taken.
        """
        folder = self.store.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock"):
            if self.store.is_done(key, keep):
                result = self.store.result(key)
                assert result is not None
                return result
            write_atomically(folder / SPEC, spec.encode())
            begun = time.perf_counter()
            with self.leader.training(key, spec) as ranks:
                context = Context(
                    folder=folder,
                    folder_of=self.store.folder,
                    keep=keep,
                    device=self.device,
                    data=self.settings.data,
                    report=report,
                    checkpoint_every=self.settings.checkpoint_every,
                    compile=self.settings.compile,
                    ranks=ranks,
                )
                result = run_task(parse_spec(spec), context)
            result["seconds"] = round(time.perf_counter() - begun, 3)
            result["finished"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
            result["environment"] = environment(self.device) | {
                "compile": self.settings.compile,
                "processes": self.leader.size,
            }
            write_json(folder / RESULT, result)
            (folder / FAILURE).unlink(missing_ok=True)
            return result
