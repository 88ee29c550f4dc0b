"""Tickets made elsewhere: read without running anything of theirs, matched to a network's layers, kept in a store.

A store has them in `tickets/NAME.safetensors`, in the form of `lthbench ticket export` (`mask.NAME`, `initial.NAME`); a
task that begins with one names it by the digest of its tensors.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from lthbench.tasks.atomic import write_atomically
from lthbench.tasks.layout import Layout
from lthbench.tasks.store import TicketError
from lthbench.tasks.tensor_files import digest

_ENTRY = "imported"
_UNREADABLE = (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError)


class Found(NamedTuple):
    """What a file of another program holds: masks, and the weights they were found for (empty without any)."""

    masks: dict[str, Tensor]
    initial: dict[str, Tensor]


def read_elsewhere(path: Path, weights: Path | None = None) -> Found:
    """Read masks of another program: open_lth's mask.pth, or a safetensors file of masks, or one that we exported.

    Args:
        weights: a state dict, of the initial weights; in open_lth model_ep0_it0.pth. One that we exported has its own.

    Raises:
        TicketError: a file is in none of these formats, or a mask has values other than 0 and 1.
    """
    tensors = _tensors(path)
    initial = _part(tensors, "initial.")
    masks = _part(tensors, "mask.") or {name: t for name, t in tensors.items() if not initial}
    if weights is not None:
        initial = _tensors(weights)
    if not masks:
        raise TicketError(f"{path}: holds no masks; give a file of name -> 0 and 1, one per weight")
    for name, mask in masks.items():
        if not ((mask == 0) | (mask == 1)).all():
            raise TicketError(f"{path}: {name}: has other values than 0 and 1, so that it is no mask")
    return Found({name: mask.bool() for name, mask in masks.items()}, initial)


def fitted(
    path: Path, found: Found, model: nn.Module, layout: Layout, rename: Mapping[str, str] | None = None
) -> Found:
    """What was found, under the names of a network; layers without a mask are dense.

    Args:
        path: of the file, for messages.
        rename: how names begin -> how they begin in the network. Where none is given and names do not match, the rules
            for open_lth's networks are tried.

    Raises:
        TicketError: names or shapes do not match; the message lists both.
    """
    own = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    prunable = {name: own[name] for name in layout.prunable}
    masks, initial = (_renamed(tensors, rename, own) for tensors in found)
    if wrong := _mismatches(masks, prunable):
        raise TicketError(
            f"{path}: its masks do not match the network: {wrong}. It has {_listed(found.masks)}; the network has "
            f"{', '.join(prunable)}. Give --rename THEIRS=OURS, as often as needed, for how names begin"
        )
    missing = ", ".join(name for name in own if name not in initial) if initial else ""
    if wrong := "; ".join(filter(None, (_mismatches(initial, own), missing and f"{missing} is missing"))):
        raise TicketError(
            f"{path}: its initial weights do not match the network: {wrong}. They have {_listed(found.initial)}; the "
            f"network has {', '.join(own)}. Give --rename THEIRS=OURS, as often as needed, for how names begin"
        )
    whole = {name: masks.get(name, torch.ones(shape, dtype=torch.bool)) for name, shape in prunable.items()}
    types = {name: t.dtype for name, t in model.state_dict().items()}
    return Found(whole, {name: initial[name].to(types[name]) for name in own if initial})


def keep(folder: Path, name: str, found: Found, layout: Layout, network: Mapping[str, Any]) -> str:
    """Write a ticket into a store's folder of tickets, under a name; returns its digest.

    Args:
        network: what the ticket is for (`network_of`).

    Raises:
        TicketError: another one has this name.
    """
    groups = {"mask": found.masks, "initial": found.initial}
    tensors = {f"{kind}.{n}": t.contiguous() for kind, part in groups.items() for n, t in part.items()}
    sha, path = digest(tensors), folder / f"{name}.safetensors"
    if path.exists() and (there := note_of(path)["digest"]) != sha:
        raise TicketError(f"{path}: another ticket has this name (digest {there[:16]}); give another --name")
    note = {"digest": sha, "network": dict(network), "layout": vars(layout), "has_weights": bool(found.initial)}
    folder.mkdir(exist_ok=True)
    write_atomically(path, save(tensors, metadata={_ENTRY: json.dumps(note)}))
    return sha


def note_of(path: Path) -> dict[str, Any]:
    """The header of a store's ticket: digest, network, layout, has_weights.

    Raises:
        TicketError: it is not there, or no ticket that was imported.
    """
    try:
        with safe_open(path, "np") as file:
            note: dict[str, Any] = json.loads((file.metadata() or {})[_ENTRY])
    except (*_UNREADABLE, OSError) as error:
        raise TicketError(f"{path}: is no imported ticket ({error}); `lthbench ticket import` makes one") from error
    return note


def read_imported(folder: Path, sha: str) -> tuple[Found, Layout]:
    """A store's ticket of a digest, with its network's layout.

    Raises:
        TicketError: none has this digest, or its tensors are not what was written.
    """
    for path in sorted(folder.glob("*.safetensors")):
        note = note_of(path)
        if note["digest"] == sha:
            tensors = load_file(path)
            if digest(tensors) != sha:
                raise TicketError(f"{path}: is not what was written: its digest is another; import it again")
            return Found(_part(tensors, "mask."), _part(tensors, "initial.")), Layout(**note["layout"])
    raise TicketError(f"{folder}: no ticket has digest {sha[:16]}; `lthbench ticket import` brings it")


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; a pickled one may hold nothing else (torch's own reader of weights alone)."""
    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TicketError(
            f"{path}: cannot be read as tensors ({reason}); give a safetensors file, or a dictionary of tensors that "
            "torch.save wrote"
        ) from error
    if not isinstance(found, Mapping):
        raise TicketError(f"{path}: holds a {type(found).__name__}, expected a dictionary, name -> tensor")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TicketError(f"{path}: {name}: is a {type(tensor).__name__}, expected a tensor under a name")
    return dict(found)


def _part(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(kind): t for name, t in tensors.items() if name.startswith(kind)}


def _renamed(tensors: Mapping[str, Tensor], rename: Mapping[str, str] | None, own: Iterable[str]) -> dict[str, Tensor]:
    if rename:
        return {_begun_otherwise(name, rename): t for name, t in tensors.items()}
    return dict(tensors) if set(tensors) <= set(own) else _as_open_lth(tensors, own)


def _begun_otherwise(name: str, rename: Mapping[str, str]) -> str:
    for theirs in sorted(rename, key=len, reverse=True):
        if name.startswith(theirs):
            return rename[theirs] + name.removeprefix(theirs)
    return name


def _as_open_lth(tensors: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """open_lth's names as ours: of LeNets, VGGs (whose modules of convolution and normalisation are numbered with the
    pooling) and, behind `model.`, ResNets for ImageNet; those for CIFAR are called the same.
    """
    numbers = sorted({int(m[1]) for name in tensors if (m := re.match(r"layers\.(\d+)\.(conv|bn)\.", name))})
    convs = [name for name in own if re.fullmatch(r"layers\.\d+\.weight", name)][::2]
    place = dict(zip(numbers, (int(name.split(".")[1]) for name in convs), strict=False))

    def ours(name: str) -> str:
        name = name.removeprefix("module.").removeprefix("model.")
        if m := re.fullmatch(r"fc_layers\.(\d+)\.(\w+)", name):
            return f"fc{int(m[1]) + 1}.{m[2]}"
        if (m := re.fullmatch(r"layers\.(\d+)\.(conv|bn)\.(\w+)", name)) and int(m[1]) in place:
            return f"layers.{place[int(m[1])] + (m[2] == 'bn')}.{m[3]}"
        return name

    # The bias of a convolution does nothing before a normalisation of batches, and ours have none.
    return {ours(n): t for n, t in tensors.items() if not re.search(r"layers\.\d+\.conv\.bias$", n)}


def _mismatches(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> str:
    unknown = [name for name in tensors if name not in shapes]
    other = [
        f"{name} is {tuple(t.shape)} and not {shapes[name]}"
        for name, t in tensors.items()
        if name in shapes and tuple(t.shape) != shapes[name]
    ]
    return "; ".join([*([f"no layer is called {', '.join(unknown)}"] if unknown else []), *other])


def _listed(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
