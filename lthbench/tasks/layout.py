"""The names of the files in a task's folder (no torch needed)."""

from __future__ import annotations

SPEC = "task.json"
RESULT = "result.json"
FAILURE = "failure.json"
LEASE = "lease"
MASK = "mask.safetensors"
CHECKPOINT = "checkpoint.safetensors"


def weights_file(step: int | None) -> str:
    """The weights at the end of a training (None) or at a kept step."""
    return "weights.safetensors" if step is None else f"weights-{step}.safetensors"
