"""Running one task by its type."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from lthbench.tasks.context import Context, Refused
from lthbench.tasks.interpolate import interpolate
from lthbench.tasks.mask import make_mask
from lthbench.tasks.result import seal
from lthbench.tasks.spec import InterpolateSpec, MaskSpec, Task, TrainSpec
from lthbench.tasks.train import train


def run_task(spec: TrainSpec | MaskSpec | InterpolateSpec, context: Context) -> dict[str, Any]:
    """Run the task of a specification and return its result, sealed with its digest.

    The result of a task that is refused has the status `refused`.
    """
    begun = time.perf_counter()
    found = _found(spec, context)
    artefacts = {name: artefact.model_dump() for name, artefact in found.get("artefacts", {}).items()}
    return seal(
        {
            **found,
            "key": Task(spec).key,
            "artefacts": artefacts,
            "inputs": {key: bits.model_dump() for key, bits in context.inputs.items()},
            "seconds": round(time.perf_counter() - begun, 3),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "environment": dict(context.environment),
        }
    )


def _found(spec: TrainSpec | MaskSpec | InterpolateSpec, context: Context) -> dict[str, Any]:
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
