"""People's own text on a terminal: shown, never obeyed."""

from __future__ import annotations

import io
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table

from lthbench.analysis.report.latex import latex_text
from lthbench.analysis.report.page import slug
from lthbench.plain import PlainConsole, csv_cell, visible


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
def test_control_characters_are_shown_and_not_executed(control: str) -> None:
    for shown in (visible(f"a{control}b"), printed(f"a{control}b")):
        assert control[0] not in shown and shown.startswith("a\\") and "b" in shown


@settings(max_examples=200)
@given(st.text())
def test_no_control_character_of_any_text_reaches_the_terminal(text: str) -> None:
    assert not {unicodedata.category(c) for c in printed(text)} & {"Cf", "Cs", "Zl", "Zp"}
    assert {c for c in printed(text) if unicodedata.category(c) == "Cc"} <= set("\n\t")


def test_what_is_printable_stays() -> None:
    assert visible("±0.5 % für 模型\n\t→") == "±0.5 % für 模型\n\t→"


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", '=HYPERLINK("x")', "-1=x"]
)
def test_no_text_is_a_formula_in_a_spreadsheet(text: str) -> None:
    assert str(csv_cell(text)).startswith("'")


@pytest.mark.parametrize(
    "value", ["-0.5", "+1.2 pp", "-0.52 ± 0.1", "-", "", "late", "2e-3", "-1e-3", -0.5, None, "a=b"]
)
def test_numbers_and_plain_words_are_written_as_they_are(value: object) -> None:
    assert csv_cell(value) == value


def test_text_is_not_executed_by_tex() -> None:
    assert latex_text(r"[\input{x}] $a_b$ \\") == (
        r"{[}\textbackslash{}input\{x\}] \$a\_b\$ \textbackslash{}\textbackslash{}"
    )
    assert "\x1b" not in latex_text("a\x1b[2J")


NAMES = st.text(st.sampled_from("nNoO+-._ /\\%é"), min_size=1, max_size=8)


@settings(max_examples=300)
@given(st.tuples(NAMES, NAMES), st.tuples(NAMES, NAMES))
def test_different_names_are_different_files_on_any_disk(one: tuple[str, str], other: tuple[str, str]) -> None:
    files = slug(*one), slug(*other)
    assert all(re.fullmatch(r"[a-z0-9._-]+", file) for file in files)
    assert (files[0] == files[1]) == (one == other)


def test_names_of_any_length_make_names_of_files() -> None:
    assert len(slug("x" * 1000, "y" * 1000)) < 200 and slug("x" * 1000) != slug("x" * 1001)
