"""The report as one HTML page that loads nothing: style, figures and tables are all within it."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import count

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lthbench.analysis.figures.style import VARIABLES
from lthbench.analysis.quantity import effect_text, p_text
from lthbench.analysis.report import claims
from lthbench.analysis.report.contents import Contents
from lthbench.analysis.report.svg import inline_svg, with_shared_styles


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
    style = files("lthbench.analysis.report").joinpath("report.css").read_text(encoding="utf-8")
    page = environment.get_template("report.html.j2").render(
        c=contents,
        suite=suite,
        store=store,
        formats=formats,
        style=Markup(style),
        colours=VARIABLES,
        claims=claims,
        effect_text=effect_text,
        p_text=p_text,
        svg=lambda drawing: inline_svg(drawing, f"f{next(ids)}"),
        slug=slug,
        is_number=is_number,
    )
    return with_shared_styles(page, "/* styles of figures */")


def slug(name: str) -> str:
    """A name as part of an id or a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "unnamed"


def is_number(text: str) -> bool:
    """Whether a cell is to be aligned as a number."""
    return bool(re.match(r"[-−+]?[\d.∞]", text)) and not re.fullmatch(r"[0-9a-f]{8}( [0-9a-f]{8})*", text)
