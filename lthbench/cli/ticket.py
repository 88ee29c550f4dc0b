"""`lthbench ticket`: tickets out of a store, for plain torch, and into it, from other programs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from lthbench import api
from lthbench.api import Source
from lthbench.cli.app import app, err, fail, out
from lthbench.cli.parameters import with_options
from lthbench.data.own_sets import know_own_sets
from lthbench.plugins import load_plugins
from lthbench.suite.imported_tickets import take_in
from lthbench.suite.load import load_suite
from lthbench.suite.shipped import find_suite
from lthbench.tasks.store import Store

ticket_app = typer.Typer(help="Export tickets from a store, or import them.", no_args_is_help=True)
app.add_typer(ticket_app, name="ticket")


@ticket_app.command("export")
@with_options
def export(
    source: Source,
    pair: Annotated[str, typer.Option(help="Of the suite.")],
    arm: Annotated[str, typer.Option(help="Of the pair.")],
    level: Annotated[int, typer.Option(help="How often the network was pruned; 0 is the dense network.", min=0)],
    file: Annotated[Path, typer.Option("--out", help="The file to write.")],
    replicate: Annotated[int, typer.Option(help="Which one, from 0.", min=0)] = 0,
    rewind: Annotated[int, typer.Option(help="The iteration whose weights it starts from.", min=0)] = 0,
) -> None:
    """Write a trained ticket as a safetensors file, which plain torch reads.

    It holds bool masks, initial and trained weights under torch's own parameter names. For a model of your own whose
    parameters have these names, five lines load it:

    \b
    from safetensors.torch import load_file
    f = load_file("ticket.safetensors").items()
    part = lambda p: {n.removeprefix(p): t for n, t in f if n.startswith(p)}
    masks, initial, trained = map(part, ("mask.", "initial.", "trained."))
    model.load_state_dict({n: t * masks.get(n, 1) for n, t in initial.items()})

    and this line after every step of an optimizer keeps what is pruned at 0:

    \b
    for n, mask in masks.items(): model.get_parameter(n).data *= mask

    Model, recipe, numbers, versions, and the mean and deviation that images were normalised by, stand in its metadata,
    as JSON: safetensors.safe_open(FILE, "pt").metadata()["ticket"].
    """
    from lthbench.tasks.ticket import write_ticket

    opened = api.open_suite(source)
    found = api.load_ticket(opened, pair, arm, replicate, level, rewind=rewind)
    write_ticket(file, found, {"pair": pair, "arm": arm, "level": level, "rewind": rewind})
    kept, whole = (sum(map(count, found.masks.values())) for count in (lambda m: int(m.sum()), lambda m: m.numel()))
    dense = "dense" if not whole else f"{100 * kept / whole:.2f} % of {whole:,} weights"
    out.print(
        f"{file}: {pair} {arm} #{replicate}, level {level}, {dense}; "
        f"test accuracy {100 * found.metrics['test_accuracy']:.2f} %"
    )
    info = found.spec.data.info
    shape = " x ".join(map(str, info.image_shape))
    out.print(f"network: {found.spec.model.name} for images of {shape} and {info.num_classes} classes")


@ticket_app.command("import")
@with_options
def import_(
    file: Annotated[Path, typer.Argument(help="open_lth's mask.pth, a safetensors file of masks, or an exported one.")],
    source: Source,
    name: Annotated[str, typer.Option(help="What suites call it.")],
    pair: Annotated[
        str | None, typer.Option(help="The pair whose network it is for; needed if the suite has several.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The initial weights it was found for; open_lth's model_ep0_it0.pth.")
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option(metavar="THEIRS=OURS", help="Replace the beginning of layer names (repeatable).")
    ] = None,
) -> None:
    """Import a ticket found elsewhere into the store, so that a suite trains it beside its controls.

    Nothing in the file is run: pickled files may hold tensors alone. Layers without a mask are dense; open_lth's names
    are known. The ticket is one replicate of an experiment:

    \b
    experiments:
      imported: {tickets: [NAME], level: 5}    # one ticket a replicate

    which stands beside the pair's own tickets of level 5.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        fail(f"--name {name}: use letters, digits and . _ + -, the first a letter or digit")
    if wrong := [pair for pair in rename or () if not re.fullmatch(r"[^=]+=[^=]*", pair)]:
        fail(f"--rename {wrong[0]}: expected THEIRS=OURS")
    renamed = dict(pair.split("=") for pair in rename or ())
    load_plugins(source.plugins)
    know_own_sets(source.data)
    suite = load_suite(find_suite(source.suite), allow_outside=source.allow_outside)
    path, sha = take_in(suite, Store(source.store, err.print), file, name, pair=pair, weights=weights, rename=renamed)
    out.print(f"{path}: digest {sha}")
    out.print(f"in a suite: `imported: {{tickets: [{name}], level: N}}`, among the experiments of a pair")
