"""`Scratch`: how the holder of a task changes its folder, so that a former holder cannot change it any more.

Everything goes through a private folder within the task's: files are written there and renamed into place, and files to
be deleted are renamed into it. A process that takes a task over first removes these folders of all former holders. So
every rename of a process that was suspended meanwhile fails, wherever it resumes, and half-written files of killed
processes are gone.
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
    """The folder in which the holder of a lease writes; a context manager, used within that of the lease.

    Attributes:
        path: where files are written (`write_atomically`).

    Raises:
        LeaseLostError: on entry, if another process holds the lease by now.
    """

    def __init__(self, folder: Path, lease: Lease) -> None:
        self.folder, self.lease = folder, lease
        self.path = folder / f"{SCRATCH}{lease.owner}"

    def __enter__(self) -> Scratch:
        self.path.mkdir()
        try:
            # In this order: a process that takes over after the check finds this folder, which is not among those
            # listed before.
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
        """Delete a file of the task's folder, if it exists.

        Raises:
            LeaseLostError: another process holds the task by now.
        """
        try:
            (self.folder / name).replace(self.path / name)
        except FileNotFoundError:
            self._check()

    def rename(self, name: str, to: str) -> None:
        """Rename a file of the task's folder, if it exists.

        Raises:
            LeaseLostError: another process holds the task by now.
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
    # Renamed first, which takes it from its owner at once, whatever is written meanwhile. A network file server may let
    # the owner write on in the renamed folder for a while, so deleting it is retried.
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
