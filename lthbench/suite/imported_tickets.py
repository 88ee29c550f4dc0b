"""Imported tickets of a suite by their digests in a store, which make them part of the keys of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lthbench.data.spec import DataSpec
from lthbench.experiments.imported import Imported
from lthbench.fault import Fault
from lthbench.models.spec import ModelSpec
from lthbench.names import unknown
from lthbench.suite.schema import Pair, Suite
from lthbench.suite.ticket_task import pair_of
from lthbench.tasks.paths import TICKETS
from lthbench.tasks.store import Store, TicketError


def network_of(model: ModelSpec, data: DataSpec) -> dict[str, Any]:
    """What a ticket is for: the network by name and width, its images and classes."""
    shape, classes = data.info.image_shape, data.info.num_classes
    return {"name": model.name, "width": model.width or model.info.width, "images": list(shape), "classes": classes}


def with_digests(suite: Suite, folder: Path) -> tuple[Suite, list[Fault]]:
    """The suite with the digests of its imported tickets, and what is wrong with them.

    Args:
        folder: of a store's tickets.
    """
    pairs, faults = {}, []
    for name, pair in suite.pairs.items():
        experiments = dict(pair.experiments)
        for label, experiment in pair.experiments.items():
            if isinstance(experiment, Imported):
                digests, found = _digests(experiment, pair, folder)
                faults += [fault.under("pairs", name, "experiments", label) for fault in found]
                experiments[label] = experiment.model_copy(update={"digests": digests})
        pairs[name] = pair.model_copy(update={"experiments": experiments})
    return suite.model_copy(update={"pairs": pairs}), faults


def take_in(
    suite: Suite,
    store: Store,
    file: Path,
    name: str,
    *,
    pair: str | None = None,
    weights: Path | None = None,
    rename: Mapping[str, str] | None = None,
) -> tuple[Path, str]:
    """Import a ticket from elsewhere into a store, which is created if needed.

    Args:
        file: as of `read_elsewhere`: open_lth's mask.pth, a safetensors file of masks, or one that we exported.
        name: by which suites name it.
        pair: whose network it is for; a suite of one pair needs none.
        weights: the state dict that the mask was found for.
        rename: as of `fitted`.

    Returns:
        Its file in the store, and its digest.

    Raises:
        SuiteError: the suite has no such pair.
        TicketError: the file cannot be read, does not match the network, or another ticket has the name.
    """
    import torch

    from lthbench.tasks.elsewhere import fitted, keep, read_elsewhere
    from lthbench.tasks.layout import Layout
    from lthbench.tasks.network import make_network

    its = pair_of(suite, pair)
    model = make_network(its.model, its.data, torch.device("cpu"))
    layout = Layout.of(model, its.model)
    found = fitted(file, read_elsewhere(file, weights), model, layout, rename)
    store.check()
    folder = store.root / TICKETS
    sha = keep(folder, name, found, layout, network_of(its.model, its.data))
    return folder / f"{name}.safetensors", sha


def _digests(experiment: Imported, pair: Pair, folder: Path) -> tuple[tuple[str, ...] | None, list[Fault]]:
    from lthbench.tasks.elsewhere import note_of

    there = sorted(path.stem for path in folder.glob("*.safetensors"))
    digests: list[str] = []
    faults: list[Fault] = []
    network = network_of(pair.model, pair.data)
    if experiment.digests is not None and len(experiment.digests) != len(experiment.tickets):
        return None, [Fault(("digests",), f"are {len(experiment.digests)} of {len(experiment.tickets)} tickets")]
    for position, name in enumerate(experiment.tickets):
        path = ("tickets", position)
        if name not in there:
            cure = "`lthbench ticket import FILE SUITE --name NAME` brings one"
            faults.append(Fault(path, f"{unknown(f'ticket in {folder}', name, there)}; {cure}"))
            continue
        try:
            note = note_of(folder / f"{name}.safetensors")
        except TicketError as error:
            faults.append(Fault(path, str(error)))
            continue
        digests.append(note["digest"])
        if experiment.digests is not None and note["digest"] != experiment.digests[position]:
            faults.append(
                Fault(("digests", position), f"'{name}' in {folder} is another ticket, of digest {note['digest']}")
            )
        if note["network"] != network:
            faults.append(Fault(path, f"'{name}' is for {note['network']}, this pair trains {network}"))
        if experiment.weights == "imported" and not note["has_weights"]:
            faults.append(
                Fault(path, f"'{name}' came without initial weights; import it with --weights, or give weights: own")
            )
    return tuple(digests), faults
