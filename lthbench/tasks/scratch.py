"""`Scratch`: how who holds a task changes its folder, so that nobody who has lost it can change it any more.

Everything goes through a folder of the holder's own within the task's: files are written in it and renamed out of it
into their place, and what is to go is renamed into it. Who takes a task over takes these folders of all former holders
away before anything else. A process that was suspended meanwhile, wherever it wakes, then has every rename refused; and
what a killed one had half written is gone.
"""

from __future__ import annotations

import errno
import shutil
import time
import uuid
from pathlib import Path
from types import TracebackType

from lthbench.lease import Lease
from lthbench.tasks.paths import SCRATCH

_TRIES = 20
_PAUSE = 0.05  # seconds between them


class Scratch:
    """The folder that the holder of a lease writes in; used with `with`, within that of the lease.

    Attributes:
        path: where files are written (`write_atomically`).

    Raises:
        LeaseLostError: on entry, where the lease is another's by now.
    """

    def __init__(self, folder: Path, lease: Lease) -> None:
        self.folder, self.lease = folder, lease
        self.path = folder / f"{SCRATCH}{lease.owner}"

    def __enter__(self) -> Scratch:
        self.path.mkdir()
        try:
            # In this order: who takes over after the check finds this folder, and has none of those listed before it.
            others = [other for other in self.folder.glob(f"{SCRATCH}*") if other != self.path]
            self.lease.check()
            for other in others:
                _take_away(other)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Delete a file of the task's folder; that there is none is no error.

        Raises:
            LeaseLostError: the task is another's by now.
        """
        try:
            (self.folder / name).replace(self.path / name)
        except FileNotFoundError:
            self._check()

    def rename(self, name: str, to: str) -> None:
        """Give a file of the task's folder another name; that there is none is no error.

        Raises:
            LeaseLostError: the task is another's by now.
        """
        try:
            (self.folder / name).replace(self.path / to)
            (self.path / to).replace(self.folder / to)
        except FileNotFoundError:
            self._check()

    def _check(self) -> None:
        if not self.path.exists():
            self.lease.check()
            raise FileNotFoundError(errno.ENOENT, "was deleted by someone who did not hold the task", str(self.path))


def _take_away(other: Path) -> None:
    # Renamed first, which takes it from its owner at once, whatever that one writes meanwhile. A network's file server
    # may let it go on in the renamed folder for a while, so that is waited for until it can be deleted.
    gone = other.with_name(f"{SCRATCH}gone-{uuid.uuid4().hex}")
    try:
        other.rename(gone)
    except FileNotFoundError:
        return
    for _ in range(_TRIES):
        shutil.rmtree(gone, ignore_errors=True)
        if not gone.exists():
            return
        time.sleep(_PAUSE)
