"""Options of several commands, each declared once: as the annotation of a dataclass's field.

threads: Annotated[int, Option("CPU threads per process.", "--threads", min=1)] = 1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, get_type_hints


class OptionError(Exception):
    """Options that cannot be given together, or here; the message names them and what to do."""


@dataclass(frozen=True)
class Option:
    """How a field is given on a command line. One whose type is a tuple may be repeated.

    Attributes:
        flag: `--name`, or `--name/--no-name`; without any it is a positional argument.
        envvar: the environment variable that sets it.
        min, max: bounds of a number, included.
        metavar: what its value is called.
    """

    help: str
    flag: str | None = None
    envvar: str | None = None
    min: float | None = None
    max: float | None = None
    metavar: str | None = None


def declared(kind: Any) -> Iterator[tuple[str, Option]]:
    """The options of a dataclass, by the names of their fields."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        for extra in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(extra, Option):
                yield field.name, extra


def words(options: Any) -> list[str]:
    """The command-line words for those options of a dataclass that differ from their defaults."""
    found: list[str] = []
    defaults = {field.name: field.default for field in fields(options)}
    for name, how in declared(type(options)):
        value = getattr(options, name)
        if how.flag is not None and value != defaults[name]:
            found += [
                word for one in (value if isinstance(value, tuple) else (value,)) for word in (how.flag, str(one))
            ]
    return found
