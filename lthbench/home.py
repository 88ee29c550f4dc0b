"""Where a user's own files go; there may be no home directory, as in containers and on some cluster nodes."""

from __future__ import annotations

import os
from pathlib import Path


def user_folder(variable: str, below_home: str) -> Path | None:
    """The folder named by an environment variable, or else one below the home directory; None without both."""
    if named := os.environ.get(variable):
        return Path(named)
    try:
        return Path.home() / below_home
    except RuntimeError:  # neither HOME nor an entry of the user's
        return None


def cache_folder() -> Path | None:
    """Where what can be found out again is kept: LTHBENCH_CACHE, or else `lthbench` in XDG_CACHE_HOME or ~/.cache."""
    own, shared = os.environ.get("LTHBENCH_CACHE"), user_folder("XDG_CACHE_HOME", ".cache")
    return Path(own) if own else shared / "lthbench" if shared else None
