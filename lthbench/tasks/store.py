"""`Store`: one folder per task, named by its key; a task is done when its result is there, and stays done.

Files are trusted only as long as they are what was written, which is checked by the digest in each result and, for
weights and masks, by those in the result. Existence and size are checked whenever tasks are looked up;
digests when a task reads the files, and by `inspect`. A damaged file is set aside, and its task is no longer done; nor
are tasks that had read other bits than the new computation gives.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from lthbench.documents import DocumentError, on_one_line, read_bounded, read_document
from lthbench.lease import Lease, LeaseLostError
from lthbench.tasks.atomic import write_atomically, write_json
from lthbench.tasks.listing import Sizes, list_folders
from lthbench.tasks.paths import DAMAGED, ENDED, FAILURE, LEASE, LOST, RESULT, SPEC, WITHDRAWN, weights_file
from lthbench.tasks.result import Artefact, fault_of, read_result, read_spec
from lthbench.tasks.scratch import Scratch
from lthbench.tasks.store_readme import explain

LAYOUT = "2"
MARKER = "lthbench-store"
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or move the store and give its new place by --store",
    errno.EDQUOT: "your quota of this disk is used up; free some space, or move the store and give it by --store",
    errno.EROFS: "the disk is read-only here; mount it for writing, or give another --store",
    errno.EACCES: "may not be written by you; change its permissions, or give another --store",
    errno.EPERM: "may not be written by you; change its permissions, or give another --store",
}

# The parts of a result that say whether and when its task was done.
_HEAD = ("status", "artefacts", "inputs", "seconds", "finished")


def _head(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in _HEAD} | {"empty_layers": result["metrics"].get("empty_layers", 0)}


class StoreError(Exception):
    """A store that cannot be used; the message names the folder and the cure, on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(on_one_line(message))


class TicketError(Exception):
    """A ticket that cannot be read, or taken in; the message names the task or file, and the cure, on one line."""

    def __init__(self, message: str) -> None:
        super().__init__(on_one_line(message))


class Fault(NamedTuple):
    """A file of a task that is not as written: its path, and what is wrong with it."""

    path: Path
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


class Failure(BaseModel):
    """The content of failure.json: why the last attempt at a task failed."""

    model_config = ConfigDict(extra="forbid")

    error: Annotated[str, Field(min_length=1)]


class Store:
    """Where results are stored: ROOT/tasks/KK/KEY/{task.json, result.json, weights*.safetensors, mask.safetensors}.

    Args:
        tell: makes the store repair itself: a damaged result is set aside instead of raising StoreError, and this is
            called with a message. Commands that only read leave it out.
    """

    def __init__(self, root: Path, tell: Callable[[str], None] | None = None) -> None:
        self.root = root
        self.tell = tell

    def folder(self, key: str) -> Path:
        return self.root / "tasks" / key[:2] / key

    def is_done(self, key: str, keep: Iterable[int] = ()) -> bool:
        """Whether a task is done (`done`)."""
        return key in self.done({key: keep})

    def missing(self, wanted: Mapping[str, Iterable[int]]) -> list[str]:
        """The keys that are not done, in order, of a mapping from key to the steps to be kept."""
        done = self.done(wanted)
        return [key for key in wanted if key not in done]

    def done(
        self, wanted: Mapping[str, Iterable[int]], files: Mapping[str, Sizes] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The tasks that are done, of a mapping from key to the steps to be kept, with the head of their results
        (`_head`).

        A task is done if its result and every file that it wrote exist, in the right size, the weights of all steps to
        be kept are among them, and what it read of other tasks is what they have now. A training that diverged, or was
        refused, is done without kept steps.

        Args:
            files: the files in the tasks' folders, if known.

        Raises:
            StoreError: as `result`.
        """
        files = self.files(wanted) if files is None else files
        found: dict[str, dict[str, Any] | None] = {}

        def result_of(key: str) -> dict[str, Any] | None:
            if key not in found:
                result = self.result(key) if key not in wanted or RESULT in files.get(key, ()) else None
                found[key] = None if result is None else _head(result)
            return found[key]

        def is_done(key: str, keep: Iterable[int]) -> bool:
            result, sizes = result_of(key), files.get(key, {})
            if result is None:
                return False
            artefacts = result["artefacts"]
            if any(sizes.get(name) != artefact["size"] for name, artefact in artefacts.items()):
                return False
            return has_kept(result, keep) and all(
                _is_as_read(bits, result_of(other)) for other, bits in result["inputs"].items()
            )

        return {key: result for key, keep in wanted.items() if is_done(key, keep) and (result := found[key])}

    def files(self, keys: Iterable[str]) -> dict[str, Sizes]:
        """Key -> the files in its folder, for those keys that have one; each folder is listed once."""
        try:
            return dict(list_folders(self.root / "tasks", keys))
        except OSError as error:
            raise unusable(self.root, error) from error

    def result(self, key: str) -> dict[str, Any] | None:
        """The result of a task, or None if there is none.

        Raises:
            StoreError: the file is not what was written, or cannot be read.
        """
        try:
            return read_result(self.folder(key), key)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(self.root, error) from error
        except DocumentError as error:
            if self.tell is None:
                raise StoreError(
                    f"{error}; `lthbench run` sets it aside and runs the task again, "
                    f"`lthbench doctor --store {self.root}` looks for more"
                ) from error
            self.set_aside(key, self.tell)
            return None

    def inspect(self, key: str) -> list[Fault]:
        """What is wrong with a task that has a result: its result, its specification, and its files, read in full."""
        folder = self.folder(key)
        try:
            result = read_result(folder, key)
        except FileNotFoundError:
            return []
        except DocumentError as error:
            return [_fault(folder / RESULT, error)]
        except OSError as error:
            return [Fault(folder / RESULT, f"cannot be read ({error.strerror})")]
        faults = [
            Fault(folder / name, what)
            for name, artefact in result["artefacts"].items()
            if (what := fault_of(folder / name, Artefact(**artefact)))
        ]
        try:
            read_spec(folder, key)
        except DocumentError as error:
            faults.append(_fault(folder / SPEC, error))
        except OSError as error:
            faults.append(Fault(folder / SPEC, f"cannot be read ({error.strerror})"))
        return faults

    def set_aside(self, key: str, tell: Callable[[str], None], *, wait: bool = False) -> list[Fault]:
        """Inspect a task and rename damaged files, so that the task is no longer done.

        Args:
            tell: called with a message for each fault.
            wait: wait for another process that holds the task; else leave the task to it.
        """
        faults: list[Fault] = []
        with contextlib.suppress(LeaseLostError), self._held(key, wait=wait) as scratch:
            if scratch is None:
                return []
            faults = self.inspect(key)
            for fault in faults:
                tell(f"{fault}; it is set aside, and its task must be run again")
                scratch.rename(fault.path.name, fault.path.name + DAMAGED)
            if faults:
                scratch.rename(RESULT, WITHDRAWN)
        return faults

    def withdraw(self, key: str) -> None:
        """Withdraw a result, unless another process holds the task: what it says of files is no longer true."""
        with contextlib.suppress(LeaseLostError), self._held(key, wait=False) as scratch:
            if scratch is not None:
                scratch.rename(RESULT, WITHDRAWN)

    @contextlib.contextmanager
    def _held(self, key: str, *, wait: bool) -> Iterator[Scratch | None]:
        """Hold a task; None if another process does and `wait` is false."""
        lease = Lease(self.folder(key) / LEASE)
        if not wait and not lease.try_acquire():
            yield None
            return
        with lease if wait else _released(lease), Scratch(self.folder(key), lease) as scratch:
            yield scratch

    def failure(self, key: str) -> str | None:
        """Why the last attempt at a task failed, or None."""
        try:
            return read_document(self.folder(key) / FAILURE, Failure).error
        except FileNotFoundError:
            return None
        except (DocumentError, OSError):
            return "for a reason that cannot be read"

    def failures(self, keys: Iterable[str]) -> dict[str, str]:
        """Those of some keys whose last attempt failed, and why."""
        files = self.files(keys)
        return {key: self.failure(key) or "" for key in files if FAILURE in files[key]}

    def note_failure(self, key: str, error: str) -> None:
        """Write down why a task failed."""
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FAILURE, Failure(error=error).model_dump())

    def forget_failure(self, key: str) -> None:
        """Let a failed task be tried again."""
        for name in (FAILURE, LOST, ENDED):
            (self.folder(key) / name).unlink(missing_ok=True)

    def check(self) -> None:
        """Make the store usable: create the folder, or say why it cannot be used.

        Raises:
            StoreError: it cannot be written, or another layout is in it.
        """
        marker = self.root / MARKER
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                # A leftover of a process that was killed before it could rename the marker does not count.
                if not self.is_new() and not marker.exists():  # another process may have made it meanwhile
                    raise StoreError(f"{self.root}: is not empty and no store; give an empty or new folder by --store")
                write_atomically(marker, f"{LAYOUT}\n".encode())
        except OSError as error:
            raise unusable(self.root, error) from error
        self.check_layout()
        explain(self.root)

    def is_new(self) -> bool:
        """Whether the folder is missing or empty, so that a store can be made there."""
        try:
            return all(p.name.startswith(f".{MARKER}.") for p in self.root.iterdir())
        except FileNotFoundError:
            return True
        except OSError as error:
            raise unusable(self.root, error) from error

    def check_layout(self) -> None:
        """Check that this program can read the store.

        Raises:
            StoreError: there is no store, or another layout is in it.
        """
        try:
            layout = read_bounded(self.root / MARKER, 100).decode(errors="replace").strip()
        except FileNotFoundError:
            is_empty = self.is_new()
            there = (
                "is not there"
                if not self.root.exists()
                else "is not a store"
                if is_empty
                else "is not empty and no store"
            )
            raise StoreError(
                f"{self.root}: {there}; give the --store of `lthbench run` or `submit`, which alone make one"
            ) from None
        except DocumentError as error:
            raise StoreError(f"{error}; give another --store") from error
        except OSError as error:
            raise unusable(self.root, error) from error
        if layout != LAYOUT:
            raise StoreError(
                f"{self.root}: has layout {layout[:20]!r} of another version of lthbench, this one has {LAYOUT!r}; "
                "use that version, or give another --store"
            )


def unusable(path: Path, error: OSError) -> StoreError:
    """The error for a path of the store that the system refuses."""
    reason = _REASONS.get(error.errno or 0)
    if reason is None:
        return StoreError(f"{path}: cannot be used as store: {error.strerror}; give another --store")
    return StoreError(f"{path}: {reason}. Nothing that is finished is lost: the same command goes on from there")


def is_about_the_disk(error: OSError) -> bool:
    """Whether an error is not the task's own, but would befall any task of the store."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def has_kept(result: Mapping[str, Any], steps: Iterable[int]) -> bool:
    """Whether a result has the weights of some steps, or can have none because its training diverged or was refused."""
    return result["status"] != "ok" or all(weights_file(step) in result["artefacts"] for step in steps)


def _is_as_read(bits: Mapping[str, Any], result: Mapping[str, Any] | None) -> bool:
    """Whether what a task read of another is what that one has now; True while that has no result."""
    if result is None:
        return True
    now = {name: artefact["sha256"] for name, artefact in result["artefacts"].items()}
    return bits["status"] == result["status"] and all(now.get(name, sha) == sha for name, sha in bits["read"].items())


def _fault(path: Path, error: DocumentError) -> Fault:
    return Fault(path, str(error).removeprefix(f"{path}: "))


@contextlib.contextmanager
def _released(lease: Lease) -> Iterator[None]:
    """Release a lease that is held, at the end."""
    try:
        yield
    finally:
        lease.release()
