"""Running one task: the verb of its kind."""

from __future__ import annotations

from typing import Any

from lthbench.tasks.context import Context, Refused
from lthbench.tasks.interpolate import interpolate
from lthbench.tasks.mask import make_mask
from lthbench.tasks.spec import InterpolateSpec, MaskSpec, TrainSpec
from lthbench.tasks.train import train


def run_task(spec: TrainSpec | MaskSpec | InterpolateSpec, context: Context) -> dict[str, Any]:
    """Run the task of a specification and return its result; a task that can never have one gives `refused`."""
    try:
        match spec:
            case TrainSpec():
                return train(spec, context)
            case MaskSpec():
                return make_mask(spec, context)
            case InterpolateSpec():
                return interpolate(spec, context)
    except Refused as reason:
        return {"status": "refused", "reason": str(reason), "metrics": {}}
