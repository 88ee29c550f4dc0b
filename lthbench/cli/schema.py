"""`lthbench schema`: every key of suites and claims."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from lthbench.cli.app import JsonOption, app, fail, out, print_json
from lthbench.names import unknown


class Document(str, Enum):
    """The files that there are schemas of."""

    suite = "suite"
    claims = "claims"


@app.command()
def schema(
    section: Annotated[
        str | None, typer.Argument(help="A part alone, as `recipe` or `experiment: imp`; unless given, their list.")
    ] = None,
    as_json: JsonOption = False,
    of: Annotated[Document, typer.Option(help="With --json: which file the JSON Schema is of.")] = Document.suite,
) -> None:
    """Print every key of a suite with type, default and an example; or the JSON Schema for editors."""
    from lthbench.suite.json_schema import claims_schema, suite_schema
    from lthbench.suite.key_reference import sections

    if as_json:
        return print_json(suite_schema() if of is Document.suite else claims_schema())
    found = sections()
    if section is None:
        for one in found.values():
            out.print(Text.assemble((one.name, "bold"), f": {one.about.partition('. ')[0].partition(chr(10))[0]}"))
        return out.print("`lthbench schema NAME` prints the keys of one, as `lthbench schema recipe`.")
    name = section if section in found or f"experiment: {section}" not in found else f"experiment: {section}"
    if name not in found:
        fail(f"schema: {unknown('part of a suite', section, found)}")
    out.print(found[name].about)
    for key in found[name].keys:
        default = f", {key.default} unless given" if key.default else ""
        out.print(Text.assemble((key.name, "bold"), f"  {key.type.replace('`', '')}{default}"))
        example = f" Example: {key.name}: {key.example}" if key.example else ""
        out.print(Padding(Text(f"{key.about}{example}"), (0, 0, 0, 4), expand=False), soft_wrap=False)
    return None
