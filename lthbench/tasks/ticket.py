"""`Ticket`: a network's mask with the weights it starts from and those it was trained to, read from a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lthbench import __version__
from lthbench.documents import DocumentError
from lthbench.tasks.atomic import write_atomically
from lthbench.tasks.context import Context, Refused, UnusableInputError
from lthbench.tasks.spec import Task, TrainSpec, Weights
from lthbench.tasks.start import start_of
from lthbench.tasks.store import Store, TicketError

# How plain torch reads what `write_ticket` writes, for a model of one's own whose parameters have these names.
IN_PLAIN_TORCH = """\
from safetensors.torch import load_file
f = load_file("ticket.safetensors").items()
part = lambda p: {n.removeprefix(p): t for n, t in f if n.startswith(p)}
masks, initial, trained = map(part, ("mask.", "initial.", "trained."))
model.load_state_dict({n: t * masks.get(n, 1) for n, t in initial.items()})
"""
AFTER_EACH_STEP = "for n, mask in masks.items(): model.get_parameter(n).data *= mask"
_ENTRY = "ticket"  # of the metadata; of several entries safetensors writes any first


@dataclass(frozen=True)
class Ticket:
    """A trained ticket.

    Attributes:
        model: the network before training: the initial weights, pruned ones 0.
        masks: name of a parameter -> bool tensor of its shape, True where it survives; empty for a dense network.
        initial: name -> the weights that it is rewound to, pruned ones too, with normalisation statistics, as in
            `state_dict`.
        trained: name -> those that training ended with; pruned ones are 0.
        spec: what determines the training: model, data, recipe, replicate (`seed`).
        key: of the training in the store.
        metrics: of the training; accuracies are fractions.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    initial: dict[str, Tensor]
    trained: dict[str, Tensor]
    spec: TrainSpec
    key: str
    metrics: Mapping[str, float]


def read_ticket(store: Store, task: Task, device: str = "cpu") -> Ticket:
    """Read a ticket from a store.

    Args:
        task: its training.

    Raises:
        TicketError: it is not trained, or its training diverged.
    """
    spec, folder = task.spec, store.folder(task.key)
    assert isinstance(spec, TrainSpec)
    context = Context(folder=folder, folder_of=store.folder, device=torch.device(device))
    if not store.is_done(task.key):
        raise TicketError(f"{folder}: this training is not done; `lthbench run` of the suite with this store trains it")
    try:
        trained, _ = context.network(Weights(task=task.key))
        start = start_of(spec, context)
        initial = start.initial if spec.start is None else context.network(spec.start)[0]
        result = store.result(task.key)
    except Refused as error:
        raise TicketError(f"{folder}: {error}; there is no ticket of this recipe, level and replicate") from error
    except (UnusableInputError, DocumentError) as error:
        raise TicketError(f"{error}; `lthbench run` of the suite with this store makes it again") from error
    assert result is not None
    return Ticket(start.model, start.mask, initial, trained, spec, task.key, result["metrics"])


def write_ticket(path: Path, ticket: Ticket, origin: Mapping[str, Any]) -> None:
    """Write a ticket as a plain safetensors file, which `IN_PLAIN_TORCH` reads.

    It holds `mask.NAME` (bool), `initial.NAME` and `trained.NAME` under torch's own parameter names, and in its
    metadata, as JSON under `ticket`, what it is: model, data with the mean and deviation that its images were
    normalised by, recipe, numbers, key and version.

    Args:
        origin: further metadata (pair, arm, level).
    """
    groups = {"mask": ticket.masks, "initial": ticket.initial, "trained": ticket.trained}
    tensors = {f"{kind}.{name}": t.cpu().contiguous() for kind, part in groups.items() for name, t in part.items()}
    info = ticket.spec.data.info
    images = {name: getattr(info, name) for name in ("image_shape", "num_classes", "mean", "std")}
    note = {
        **origin,
        **ticket.spec.model_dump(mode="json", include={"model", "data", "recipe"}),
        "images": images,
        "replicate": ticket.spec.seed,
        "metrics": dict(ticket.metrics),
        "key": ticket.key,
        "lthbench": __version__,
        "torch": torch.__version__,
    }
    write_atomically(path, save(tensors, metadata={_ENTRY: json.dumps(note)}))
