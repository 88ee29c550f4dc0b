"""Tables on narrow terminals: words stay whole, and nothing is left out."""

from __future__ import annotations

from itertools import chain
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

_SHORTEST_FOLD = 16  # characters; columns whose overflow is `fold`, as paths, are broken anywhere


def fitted(table: Table, console: Console) -> RenderableType:
    """The table, its columns as wide as lets words be whole; or, where that does not fit, its rows as paragraphs."""
    least, most = zip(*(_measured(column, console) for column in table.columns), strict=True)
    room = console.width - table._extra_width - sum(2 for _ in table.columns)
    if sum(least) > room:
        return _as_paragraphs(table, console)
    for column, width in zip(table.columns, _shared(list(least), list(most), room), strict=True):
        column.width = width
    return table


def _measured(column: Column, console: Console) -> tuple[int, int]:
    """The widths that a column needs at least, for its longest word, and at most, to have each cell on one line."""
    cells = [Measurement.get(console, console.options, cell) for cell in chain([column.header], column.cells)]
    least, most = max(cell.minimum for cell in cells), max(cell.maximum for cell in cells)
    return (min(least, _SHORTEST_FOLD) if column.overflow == "fold" else least), most


def _shared(least: list[int], most: list[int], room: int) -> list[int]:
    """Widths that fit: the widest columns give way first, none below its least."""
    widths = list(most)
    while (excess := sum(widths) - room) > 0:
        widest = max((i for i in range(len(widths)) if widths[i] > least[i]), key=lambda i: widths[i])
        others = [w for i, w in enumerate(widths) if widths[i] > least[i] and i != widest and w < widths[widest]]
        target = max(least[widest], max(others, default=0), widths[widest] - excess)
        widths[widest] = min(target, widths[widest] - 1)
    return widths


def _as_paragraphs(table: Table, console: Console) -> Group:
    """A paragraph for each row: its first cell, then each other that is not empty with its column's name."""
    paragraphs: list[RenderableType] = [Text(str(table.title), "italic")] if table.title else []
    names = [_text(column.header, console).plain.replace("\n", " ") for column in table.columns]
    for row in zip(*(list(column.cells) for column in table.columns), strict=True):
        first, *others = (_text(cell, console) for cell in row)
        named = [
            Text.assemble((f"{name}: " if name else "", "dim"), text)
            for name, text in zip(names[1:], others, strict=True)
            if text.plain
        ]
        paragraph = Text("; ").join(named)
        if first.plain:
            paragraphs.append(Text.assemble(first, style="bold"))
        if named:
            paragraphs.append(Padding(paragraph, (0, 0, 0, 2), expand=False))
    return Group(*paragraphs)


def _text(cell: Any, console: Console) -> Text:
    return cell if isinstance(cell, Text) else console.render_str(str(cell))
