"""Running tasks in one process: hold the lease of the folder, do the work, write the result last."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Literal

from lthbench.runner.environment import environment, make_deterministic
from lthbench.runner.lease import Lease, LeaseLostError
from lthbench.runner.ranks import Leader, device_of_rank
from lthbench.runner.settings import Settings
from lthbench.runner.store import Store, is_about_the_disk, unusable
from lthbench.tasks.atomic import write_atomically, write_json
from lthbench.tasks.context import Context
from lthbench.tasks.layout import FAILURE, LEASE, RESULT, SPEC
from lthbench.tasks.run import run_task
from lthbench.tasks.spec import parse_spec

Asked = Callable[[], Literal["save", "stop"] | None]


class Worker:
    """Runs tasks one after another in this process.

    Args:
        asked: what a running training is asked to do (Context.asked).
    """

    def __init__(self, settings: Settings, asked: Asked = lambda: None) -> None:
        self.settings = settings
        self.store = Store(settings.store)
        self.device = device_of_rank(settings.device)
        self.leader = Leader(settings)
        self.asked = asked
        make_deterministic(settings.threads)

    def close(self) -> None:
        """End the processes that worked with this one."""
        self.leader.close()

    def run(self, key: str, spec: str, keep: frozenset[int], report: Callable[[int, int], None]) -> dict[str, Any]:
        """Run the task of a canonical specification unless it is done, and return its result.

        Another process at the same task is waited for; its result is then taken.

        Raises:
            StoreError: the disk is full or read-only: no other task would fare better.
        """
        folder = self.store.folder(key)
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with Lease(folder / LEASE) as lease:
                    if self.store.is_done(key, keep) and (result := self.store.result(key)) is not None:
                        return result
                    return self._run(key, spec, keep, report, lease)
            except LeaseLostError:
                continue
            except OSError as error:
                if is_about_the_disk(error):
                    raise unusable(folder, error) from error
                raise

    def _run(
        self, key: str, spec: str, keep: frozenset[int], report: Callable[[int, int], None], lease: Lease
    ) -> dict[str, Any]:
        folder = self.store.folder(key)

        def tell(done: int, total: int) -> None:
            if lease.lost:
                lease.check()
            report(done, total)

        write_atomically(folder / SPEC, spec.encode())
        begun = time.perf_counter()
        with self.leader.training(key, spec) as ranks:
            context = Context(
                folder=folder,
                folder_of=self.store.folder,
                keep=keep,
                device=self.device,
                data=self.settings.data,
                report=tell,
                checkpoint_every=self.settings.checkpoint_every,
                compile=self.settings.compile,
                asked=self.asked,
                ranks=ranks,
            )
            result = run_task(parse_spec(spec), context)
        result["seconds"] = round(time.perf_counter() - begun, 3)
        result["finished"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        result["environment"] = environment(self.device) | {
            "compile": self.settings.compile,
            "processes": self.leader.size,
        }
        lease.check()
        write_json(folder / RESULT, result)
        (folder / FAILURE).unlink(missing_ok=True)
        return result
