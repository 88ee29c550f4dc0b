"""Tables as LaTeX, with the rules of booktabs."""

from __future__ import annotations

from lthbench.analysis.figures.drawing import Grid
from lthbench.plain import visible

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "∞": r"$\infty$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "\n": " ",
    "[": "{[}",  # which after the end of a row would begin an option of it
}


def latex_text(text: str) -> str:
    """Text as LaTeX that prints it."""
    return "".join(_SPECIAL.get(c, c) for c in visible(text))


def latex_table(grid: Grid, caption: str, label: str) -> str:
    """A table environment; needs \\usepackage{booktabs}."""
    columns = "".join("l" if any(c[:1].isalpha() for c in column) else "r" for column in _columns(grid))
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(caption)}}}",
        rf"  \label{{tab:{label}}}",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        "    " + " & ".join(map(latex_text, grid.columns)) + r" \\",
        r"    \midrule",
        *("    " + " & ".join(map(latex_text, row)) + r" \\" for row in grid.rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _columns(grid: Grid) -> list[tuple[str, ...]]:
    return list(zip(*grid.rows, strict=True)) if grid.rows else [() for _ in grid.columns]
