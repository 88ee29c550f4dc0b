"""Names that users type: the error for one that does not exist names the nearest that does."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return the message for `name`, which is none of `valid`: the nearest valid name, and all of them."""
    valid = list(valid)
    near = difflib.get_close_matches(name.lower(), valid, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}{guess} (there are {', '.join(valid)})"
