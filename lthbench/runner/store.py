"""`Store`: one folder a task, named by its key; a task is done when its result is there, and stays done."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lthbench.tasks.layout import FAILURE, RESULT, weights_file

LAYOUT = "1"


class StoreError(Exception):
    """A store that cannot be used; the message names the folder and the cure."""


class Store:
    """Where results live: ROOT/tasks/KK/KEY/{task.json, result.json, weights*.safetensors, mask.safetensors}."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        return self.root / "tasks" / key[:2] / key

    def is_done(self, key: str, keep: Iterable[int] = ()) -> bool:
        """Whether the result is there, with the weights of all steps that are to be kept.

        A training that diverged, or was refused, is done without them.
        """
        folder = self.folder(key)
        if not (folder / RESULT).exists():
            return False
        if all((folder / weights_file(step)).exists() for step in keep):
            return True
        result = self.result(key)
        return result is not None and result["status"] != "ok"

    def result(self, key: str) -> dict[str, Any] | None:
        """The result of a task, or None where it is not done.

        Raises:
            StoreError: the file is no result.
        """
        path = self.folder(key) / RESULT
        try:
            result: dict[str, Any] = json.loads(path.read_text())
            if not isinstance(result.get("metrics"), dict) or "status" not in result:
                raise ValueError("status or metrics missing")
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StoreError(f"{path}: is no result ({error}); delete the folder to run the task again") from error
        return result

    def failure(self, key: str) -> str | None:
        """Why the last attempt at a task failed, or None."""
        try:
            return str(json.loads((self.folder(key) / FAILURE).read_text())["error"])
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def check(self) -> None:
        """Make the store usable: create the folder, or say why it cannot be used.

        Raises:
            StoreError: it cannot be written, or another layout is in it.
        """
        marker = self.root / "lthbench-store"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                if any(self.root.iterdir()):
                    raise StoreError(f"{self.root}: is not empty and no store; give an empty or new folder by --store")
                marker.write_text(LAYOUT + "\n")
            if marker.read_text().strip() != LAYOUT:
                raise StoreError(f"{self.root}: has another layout than this program's; give another --store")
        except OSError as error:
            raise StoreError(f"{self.root}: cannot be used as store: {error.strerror}; give another --store") from error
