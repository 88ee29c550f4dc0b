"""The names of the files in a task's folder (no torch needed)."""

from __future__ import annotations

SPEC = "task.json"
RESULT = "result.json"
FAILURE = "failure.json"
LEASE = "lease"
MASK = "mask.safetensors"
CHECKPOINT = "checkpoint.safetensors"
# Marks that the task's last attempt ended with a dead GPU context.
LOST = "device.lost"
# Marks that the task's worker makes no progress at present.
STALLED = "stalled.json"
# Marks that the last process at the task was ended because it made no progress.
ENDED = "stalled.ended"
# A withdrawn result, some of whose artefacts are gone, until the task is done again.
WITHDRAWN = "result.json.withdrawn"
# Suffix of files that were set aside because they are not what was written.
DAMAGED = ".damaged"
# Prefix of the folder in which the holder of a task writes.
SCRATCH = ".scratch-"
# Of a store, the folder of the tickets that were made elsewhere.
TICKETS = "tickets"


def weights_file(step: int | None) -> str:
    """The weights at the end of a training (None) or at a kept step."""
    return "weights.safetensors" if step is None else f"weights-{step}.safetensors"
