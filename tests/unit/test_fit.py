"""On a terminal of any width, words stay whole and nothing is left out of a table."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lthbench.cli.fit import fitted

WORDS = ["claim", "inconclusive", "reinitialisation", "lenet-garments", "93.04", "supported"]
SENTENCE = "Tickets train faster than dense networks and reinitialisations (earlier abstract)"


def a_table() -> Table:
    table = Table("claim", "pair", "verdict", "what was found", "n", title="Claims")
    table.add_row("C20", "lenet-garments", Text("inconclusive", "yellow"), SENTENCE, "3/3")
    table.add_row("", "conv4-cifar10", "supported", "late tickets are 0.29 pp above", "5/5")
    return table


def printed(width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(fitted(a_table(), console))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("width", [30, 45, 60, 80, 120, 200])
def test_no_word_is_broken_or_left_out(width: int) -> None:
    text = printed(width)
    assert "…" not in text
    found = text.replace("│", " ").replace("┃", " ").split()
    cells = [
        SENTENCE,
        "late tickets are 0.29 pp above",
        "lenet-garments conv4-cifar10 inconclusive supported 3/3 5/5 C20",
    ]
    missing = [word for cell in cells for word in cell.split() if word not in found and f"{word};" not in found]
    assert missing == []


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    assert max(map(len, printed(width).splitlines())) <= width


def test_where_the_longest_words_fit_it_stays_a_table() -> None:
    assert "━" in printed(80) and "━" not in printed(45)


def test_paths_are_broken_anywhere_before_a_table_is_given_up() -> None:
    console = Console(file=io.StringIO(), width=60)
    table = Table("data set", "there")
    table.add_column("folder", overflow="fold")
    table.add_row("cifar10", "yes", "/a/very/long/path/" + 8 * "without/a/space/")
    assert isinstance(fitted(table, console), Table)
