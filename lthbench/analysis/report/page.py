"""The report as one HTML page without external resources: style, figures and tables are all within it."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lthbench.analysis.figures.drawing import Grid
from lthbench.analysis.figures.style import VARIABLES
from lthbench.analysis.quantity import effect_text, p_text
from lthbench.analysis.report import agreement, verdict_table
from lthbench.analysis.report.contents import Contents
from lthbench.analysis.report.svg import inline_svg, with_shared_styles

# The page of a larger suite is compact: tables have a column for each x, and keys and hover values are left to the
# tables beside the page, so that a report of every pair of the paper stays under 5 MB.
MAX_TASKS_IN_FULL = 5000


def render(contents: Contents, suite: str, store: str, formats: tuple[str, ...]) -> str:
    """The page.

    Args:
        suite, store: how the user names them.
        formats: of the figures that are written beside the page, which it then refers to.
    """
    environment = Environment(
        loader=PackageLoader("lthbench.analysis.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ids = count()
    in_full = contents.num_tasks <= MAX_TASKS_IN_FULL
    style = files("lthbench.analysis.report").joinpath("report.css").read_text(encoding="utf-8")
    page = environment.get_template("report.html.j2").render(
        c=contents,
        suite=suite,
        store=store,
        formats=formats,
        style=Markup(style),
        colours=VARIABLES,
        claims=verdict_table,
        agreement=agreement,
        effect_text=effect_text,
        p_text=p_text,
        svg=lambda drawing: inline_svg(drawing, f"f{next(ids)}", with_hover=in_full),
        shown=lambda grid: grid if in_full else by_columns(grid),
        without_tasks=without_tasks,
        in_full=in_full,
        slug=slug,
        is_number=is_number,
    )
    return with_shared_styles(page, "/* styles of figures */")


def without_tasks(grid: Grid) -> Grid:
    """A table without the column of its tasks' keys, which is the last if there is one."""
    if grid.columns[-1] != "tasks":
        return grid
    return Grid(grid.columns[:-1], [row[:-1] for row in grid.rows])


def by_columns(grid: Grid) -> Grid:
    """A table with a line for each number as one with a column for each value of its second column, n in brackets."""
    if grid.columns[-2:] != ("n", "tasks"):
        return without_tasks(grid)
    titles = (grid.columns[0], *grid.columns[2:-3])
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for first, x, *rest, value, n, _ in grid.rows:
        cells.setdefault((first, *rest), {})[x] = f"{value} ({n})"
    xs = list(dict.fromkeys(row[1] for row in grid.rows))
    columns = (*titles, *(f"{grid.columns[1]} {x}" if x == xs[0] else x for x in xs))
    return Grid(columns, [(*names, *(of.get(x, "") for x in xs)) for names, of in cells.items()])


def slug(*names: str) -> str:
    """Names as an id or a file name, unique even on case-insensitive disks."""
    return ".".join(map(_part_of_slug, names))


def _part_of_slug(name: str) -> str:
    plain = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")[:60]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def is_number(text: str) -> bool:
    """Whether a cell is to be aligned as a number."""
    return bool(re.match(r"[-−+<]?\s?[\d.∞]", text)) and not re.search(r"[A-Za-z]{3}|[0-9a-f]{8}", text)
