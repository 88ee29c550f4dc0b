"""Names that users type: the error for an unknown one suggests the nearest valid one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LISTED = 20


def close(name: str, valid: Iterable[str]) -> list[str]:
    """The nearest valid name, if one is similar."""
    by_lower = {word.lower(): word for word in valid}
    return [by_lower[word] for word in difflib.get_close_matches(name.lower(), by_lower, n=1)]


def suggestion(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'X'?` where a valid name is near, else nothing."""
    near = close(name, valid)
    return f"; did you mean '{near[0]}'?" if near else ""


def nearest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'X'?` where a valid name is near, else the list of valid names."""
    valid = list(valid)
    if guess := suggestion(name, valid):
        return guess
    more = f" and {len(valid) - _LISTED} more" if len(valid) > _LISTED else ""
    return f"; known: {', '.join(valid[:_LISTED]) or 'none'}{more}"


def unknown(kind: str, name: str, valid: Iterable[str]) -> str:
    """Return the message for an invalid `name`: the nearest of `valid`, or all of them."""
    return f"no {kind} is called '{name}'{nearest(name, valid)}"
