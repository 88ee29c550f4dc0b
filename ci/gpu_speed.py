"""Images a second that a GPU trains of each pair of a suite: by precision, with and without CUDA graphs, and with
several processes on it. Writes JSON after every measurement, the most telling ones first.

python ci/gpu_speed.py FILE SUITE [--pair NAME] [--seconds 1] [--limit 280]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from lthbench.bench import throughput
from lthbench.runner.environment import environment, make_deterministic
from lthbench.suite.load import load_suite
from lthbench.suite.schema import Suite
from lthbench.tasks.atomic import write_atomically

DEVICE = torch.device("cuda")
# Of all processes together, one after another where all pairs are measured.
FORMS = [
    {"precision": "float32", "graphs": True, "processes": 1},
    {"precision": "float32", "graphs": False, "processes": 1},
    {"precision": "bfloat16", "graphs": True, "processes": 1},
    {"precision": "float32", "graphs": True, "processes": 4},
    {"precision": "TF32", "graphs": True, "processes": 1},
    {"precision": "float32", "graphs": True, "processes": 2},
    {"precision": "float32", "graphs": False, "processes": 4},
    {"precision": "bfloat16", "graphs": False, "processes": 1},
    {"precision": "TF32", "graphs": False, "processes": 1},
]


def rate(suite: str, pair: str, precision: str, graphs: bool, seconds: float) -> float:
    """Images a second of the first arm of a pair, in this process."""
    throughput.SECONDS = seconds
    make_deterministic(1)  # as tasks run: TF32 off
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "TF32"
    its = load_suite(Path(suite)).pairs[pair]
    recipe = next(iter(its.arms.values())).recipe
    recipe = recipe.model_copy(update={"precision": "bfloat16" if precision == "bfloat16" else "float32"})
    bench = throughput.TrainingBench(DEVICE, graphs, print)
    return throughput.training_rate(its.model, its.data.name, recipe, bench).images_per_second


def rate_together(processes: int, *arguments: Any) -> float:
    """The sum of what several processes reach at the same time."""
    if processes == 1:
        return rate(*arguments)
    # Started by spawn: a fork has no GPU. Each begins as soon as it is there; the first ones' warm-up is the others'.
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _begin_with, (_barrier(processes),)
    ) as pool:
        return sum(pool.map(_rate_at_once, [arguments] * processes))


_together: Any = None


def _barrier(processes: int) -> Any:
    return multiprocessing.get_context("spawn").Barrier(processes, timeout=120)


def _begin_with(barrier: Any) -> None:
    global _together
    _together = barrier


def _rate_at_once(arguments: tuple[Any, ...]) -> float:
    torch.ones(1, device=DEVICE)
    _together.wait()
    return rate(*arguments)


def measurements(suite: Suite, pairs: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for form in FORMS:
        for pair in pairs or suite.pairs:
            yield pair, form


def main() -> int:
    """Measure until the limit; returns how many measurements failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("suite")
    parser.add_argument("--pair", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--limit", type=float, default=280.0, help="seconds after which none is begun")
    options = parser.parse_args()
    begun, failed = time.monotonic(), 0
    rows: list[dict[str, Any]] = []
    for pair, form in measurements(load_suite(Path(options.suite)), options.pair):
        if time.monotonic() - begun > options.limit:
            print("the limit is reached; what is left was not measured")
            break
        row = {"pair": pair, **form}
        try:
            arguments = (options.suite, pair, form["precision"], form["graphs"], options.seconds)
            row["images_per_second"] = rate_together(form["processes"], *arguments)
            graphs = "graphs" if form["graphs"] else "eager"
            print(f"{pair:24} {form['precision']:9} {graphs:7} {form['processes']} processes "
                  f"{row['images_per_second']:12,.0f} images/s", flush=True)  # fmt: skip
        except Exception as error:  # the other measurements are wanted all the same
            traceback.print_exc()
            row["failed"] = f"{type(error).__name__}: {error}"
            failed += 1
        rows.append(row)
        found = {"environment": environment(DEVICE), "rows": rows}
        write_atomically(options.file, (json.dumps(found, indent=1) + "\n").encode())
    return failed


if __name__ == "__main__":
    sys.exit(main())
