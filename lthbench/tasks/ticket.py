"""`Ticket`: a network's mask with the weights it starts from and those it was trained to, read from a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lthbench.documents import DocumentError
from lthbench.tasks.context import Context, Refused, UnusableInputError
from lthbench.tasks.spec import Task, TrainSpec, Weights
from lthbench.tasks.start import start_of
from lthbench.tasks.store import Store


class TicketError(Exception):
    """A ticket that cannot be read, or made; the message names the task or file, and the cure."""


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
    try:
        trained, _ = context.network(Weights(task=task.key))
        start = start_of(spec, context)
        initial = start.initial if spec.start is None else context.network(spec.start)[0]
        result = store.result(task.key)
    except Refused as error:
        raise TicketError(f"{folder}: {error}; there is no ticket of this recipe, level and replicate") from error
    except (UnusableInputError, DocumentError) as error:
        raise TicketError(
            f"{error}; `lthbench run` of the suite with this store trains it, or what is missing of it"
        ) from error
    assert result is not None
    return Ticket(start.model, start.mask, initial, trained, spec, task.key, result["metrics"])
