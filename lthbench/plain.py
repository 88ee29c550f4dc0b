"""Foreign text (names, paths, output of programs) on a terminal and in tables: shown, never interpreted."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text


def visible(text: str) -> str:
    """Text with control characters, and those that change the writing direction, as Python escapes."""
    if text.isprintable():  # as nearly all is: nothing of the kind is in it
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _CONTROL else ascii(c)[1:-1] for c in text)


# Control, format, surrogate, line and paragraph separator.
_CONTROL = {"Cc", "Cf", "Cs", "Zl", "Zp"}


# A number, signed, with what may follow one in a cell: a spread, a unit.
_NUMBER = re.compile(r"[+-]?\.?\d[\d.,]*(e[+-]?\d+)?(\s[^=|!@]*)?")


def csv_cell(value: object) -> object:
    """A value for a cell of a CSV file; text that spreadsheets would take for a formula begins with an apostrophe."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text[:1] in "=+-@\t" and text not in ("", "-") and not _NUMBER.fullmatch(text) else text


class PlainConsole(Console):
    """A console that prints square brackets literally; styled text is printed as a `Text`."""

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as what is printed for it."""
        return super().render_str(visible(text), **(options | {"markup": False, "emoji": False, "highlight": False}))

    def on_broken_pipe(self) -> NoReturn:
        """A broken pipe is an error like others; rich and typer would exit with 1, as for failed tasks."""
        raise OSError("Broken pipe")  # of no number, by which typer would know it
