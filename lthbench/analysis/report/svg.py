"""A figure as SVG within a page: in the page's colours, with hover texts and a description, without scripts."""

from __future__ import annotations

import io
import re
from pathlib import Path

from markupsafe import Markup, escape

from lthbench.analysis.figures.drawing import Drawing
from lthbench.analysis.figures.style import FONTS, VARIABLES, figure_style
from lthbench.tasks.tensor_files import write_atomically

# No date or program in the metadata, so that the same numbers give the same bytes.
_METADATA = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
FORMATS = tuple(_METADATA)
_DPI = {"png": 200}


def save(drawing: Drawing, stem: Path, formats: tuple[str, ...] = FORMATS) -> None:
    """Write a figure as STEM.pdf, STEM.svg and STEM.png."""
    for form in formats:
        write_atomically(stem.with_name(f"{stem.name}.{form}"), _bytes(drawing, form))


def inline_svg(drawing: Drawing, prefix: str, with_hover: bool = True) -> Markup:
    """The figure as an `svg` element.

    Args:
        prefix: of all its ids, which must be unique in a page.
        with_hover: whether its points say their numbers when pointed at.
    """
    text = _bytes(drawing, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = _coloured(_with_own_ids(text, prefix))
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d{2,}", _short, tag[0]), text)
    text = _with_marker_styles(text)
    # The lines of the grid end with it, so they need not be cut there.
    text = re.sub(r' clip-path="[^"]*"(?=[^>]*stroke: var\(--grid\))', "", text)
    text = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", text)
    text = re.sub(r"\s*\n\s*", " ", text).replace("> <", "><")
    text = _without_bare_groups(text)
    if with_hover:
        text = text.replace("</svg>", _hover_points(drawing) + "</svg>")
    start, body = text.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', start)
    assert view is not None
    title, description = escape(drawing.title), escape(drawing.description)
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" {view[0]} role="img" '
        f'aria-labelledby="{prefix}-title {prefix}-description">'
        f'<title id="{prefix}-title">{title}</title><desc id="{prefix}-description">{description}</desc>'
        f"{body}"
    )


def _without_bare_groups(text: str) -> str:
    """Groups that carry nothing go; what is in them stays."""
    while (thinner := re.sub(r"<g>((?:(?!</?g\b).)*)</g>", r"\1", text)) != text:
        text = thinner
    return text


def _short(coordinate: re.Match[str]) -> str:
    """A coordinate to a tenth of a point, which keeps the page small."""
    return f"{float(coordinate[0]):.1f}".removesuffix(".0")


def _bytes(drawing: Drawing, form: str) -> bytes:
    buffer = io.BytesIO()
    with figure_style():
        drawing.figure.savefig(
            buffer, format=form, metadata=_METADATA[form], transparent=form == "svg", dpi=_DPI.get(form, 72)
        )
    return buffer.getvalue()


def _with_own_ids(text: str, prefix: str) -> str:
    """Ids that something refers to become short ones of this figure alone; the others go."""
    used = dict.fromkeys(a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    new = {old: f"{prefix}-{index}" for index, old in enumerate(used)}
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{new[m[1]]}"' if m[1] in new else "", text)
    text = re.sub(r'xlink:href="#([^"]+)"', lambda m: f'href="#{new[m[1]]}"', text)
    return re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{new[m[1]]})", text)


def _with_marker_styles(text: str) -> str:
    """The style of a shape that is drawn many times is given once, with the shape."""
    styles: dict[str, set[str]] = {}
    for name, style in re.findall(r'<use href="#([^"]+)"[^>]*? style="([^"]*)"', text):
        styles.setdefault(name, set()).add(style)
    for name, (style, *others) in styles.items():
        if not others:
            shape = re.search(rf'<path id="{name}"[^>]*>', text)
            assert shape is not None
            own = re.search(r' style="([^"]*)"', shape[0])
            styled = shape[0].replace(own[0], "") if own else shape[0]
            styled = styled.replace("<path ", f'<path style="{style}{"; " + own[1] if own else ""}" ', 1)
            text = text.replace(shape[0], styled)
            text = re.sub(rf'(<use href="#{name}"[^>]*?) style="[^"]*"', r"\1", text)
    return text


def _coloured(text: str) -> str:
    """The colours of figures as variables of the page, which has a value for light and one for dark."""
    for light, (name, _) in VARIABLES.items():
        text = text.replace(light, f"var(--{name})")
    return text.replace(f"'{FONTS[0]}'", "var(--sans)")


def _hover_points(drawing: Drawing) -> str:
    """Invisible circles that show their number on hover."""
    height = drawing.figure.get_figheight() * 72
    parts = []
    for point in drawing.points:
        x, y = point.axes.transData.transform((point.x, point.y)) * 72 / drawing.figure.dpi + (point.aside, 0)
        parts.append(f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="6"><title>{escape(point.text)}</title></circle>')
    return f'<g class="points">{"".join(parts)}</g>' if parts else ""


def with_shared_styles(page: str, mark: str) -> str:
    """A page with the style attributes of its figures, of which there are few kinds, as classes; their rules replace a
    mark."""
    names: dict[str, str] = {}

    def classed(m: re.Match[str]) -> str:
        return f'{m[1]} class="{names.setdefault(m[2], f"s{len(names)}")}"'

    page = re.sub(r'(<[a-z]+\b[^<>]*?) style="([^"]*)"', classed, page)  # in tags alone: text is not to be trusted
    return page.replace(mark, "\n".join(f".{name} {{ {rule} }}" for rule, name in names.items()))
