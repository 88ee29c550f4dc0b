"""The names of the files in a task's folder (no torch needed)."""

from __future__ import annotations

SPEC = "task.json"
RESULT = "result.json"
FAILURE = "failure.json"
LEASE = "lease"
MASK = "mask.safetensors"
CHECKPOINT = "checkpoint.safetensors"
# That the task's last attempt ended with the GPU's context dead, until another ends otherwise.
LOST = "device.lost"
# That the task's worker makes no progress, as long as it makes none.
STALLED = "stalled.json"
# That a process was ended at the task since it made no progress, until another ends otherwise.
ENDED = "stalled.ended"
# A result whose artefacts are not all there any more, until the task is done again.
WITHDRAWN = "result.json.withdrawn"
# What the name of a file ends in that was set aside since it is not what was written.
DAMAGED = ".damaged"
# What the name of the folder begins with that a task's holder writes in.
SCRATCH = ".scratch-"


def weights_file(step: int | None) -> str:
    """The weights at the end of a training (None) or at a kept step."""
    return "weights.safetensors" if step is None else f"weights-{step}.safetensors"
