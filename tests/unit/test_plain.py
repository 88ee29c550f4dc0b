"""People's own text on a terminal: shown, never obeyed."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from lthbench.plain import PlainConsole, visible


def printed(*what: object) -> str:
    file = io.StringIO()
    PlainConsole(file=file, soft_wrap=True, width=1000, force_terminal=True, color_system=None).print(*what)
    return file.getvalue()


@pytest.mark.parametrize(
    "text", ["sweep[/a]", "opt=[adam,sgd]", "[red]x[/red]", "[link=file:///etc]x[/]", ":smile:", "\\[b]"]
)
def test_brackets_and_colons_are_printed_as_they_are(text: str) -> None:
    assert printed(text) == text + "\n"
    table = Table(text, title=text)
    table.add_row(text)
    assert printed(table).count(text) == 3


@pytest.mark.parametrize(
    "control", ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\r", "\x08", "\u202e", "\u2028", "\ud800"]
)
def test_control_characters_are_shown_and_not_obeyed(control: str) -> None:
    for shown in (visible(f"a{control}b"), printed(f"a{control}b")):
        assert control[0] not in shown and shown.startswith("a\\") and "b" in shown


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_whatever_text_says_no_control_of_it_reaches_the_terminal(text: str) -> None:
    assert not {unicodedata.category(c) for c in printed(text)} & {"Cf", "Cs", "Zl", "Zp"}
    assert {c for c in printed(text) if unicodedata.category(c) == "Cc"} <= set("\n\t")


def test_what_is_printable_stays() -> None:
    assert visible("±0.5 % für 模型\n\t→") == "±0.5 % für 模型\n\t→"
