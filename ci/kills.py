"""Kill runs of a suite again and again: `ci/kills.py --kills N --seed N`; each must end as an undisturbed one.

The suite trains narrow ResNets, with a checkpoint after every step, in two workers. A SIGKILL comes a moment after a
number of steps drawn anew each time, and takes all processes, the main one alone, or one worker. Runs are forked from
this process, which has imported torch once, so that a kill costs a second. Compared are all files of the store, and
all that results say but for times; a process killed between its result and its end leaves a lease or a checkpoint
beside it, which are counted. Prints a line per store; kills of several seeds add up.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import torch
import torch._dynamo  # which a first training imports

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import lthbench.tasks.run  # noqa: E402, F401 (in each worker's place)
from lthbench.runner import worker, worker_process  # noqa: E402
from lthbench.runner.local import run_plan  # noqa: E402
from lthbench.runner.settings import Settings  # noqa: E402
from lthbench.runner.watcher import Watcher  # noqa: E402
from lthbench.suite.load import load_suite  # noqa: E402
from lthbench.suite.plan import Plan, make_plan  # noqa: E402
from lthbench.tasks.paths import CHECKPOINT, LEASE, RESULT, SCRATCH, WITHDRAWN  # noqa: E402
from lthbench.tasks.store import Store  # noqa: E402

SUITE = """\
title: kills
replicates: 1
pairs:
  pair:
    model: {name: resnet8, width: 2}
    data: {name: fashion-mnist-10k, num_train: 64, num_test: 100, validation: 100}
    recipe:
      steps: 3ep
      batch_size: 16
      optimizer: {name: sgd, lr: 0.05, momentum: 0.9, nesterov: true, weight_decay: 1.0e-3}
      augment: {crop: 2, flip: true}
    arms:
      sgd: {}
      adam: {recipe: {optimizer: {name: adamw, lr: 1.0e-3}, ema: 0.9, micro_batch: 12, label_smoothing: 0.1}}
    experiments:
      imp: {levels: 2, rewind: 1ep}
      stability: {spawns: [1ep2it], points: 3, arms: [sgd]}
"""
KINDS = ("all processes", "the main process", "one worker")
_STEPS = 4  # between two kills, at most


class Signs(Watcher):
    """Writes a byte into a pipe at each sign of progress."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def progressed(self, key: str, worker: int, done: int, total: int) -> None:
        os.write(self.pipe, b".")


def started(plan: Plan, store: Path) -> tuple[int, int]:
    """Start a run in a process group of its own; returns its process and the pipe of its signs."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.close(reads)
            worker._REPORT_EVERY = 0.0
            Store(store).check()
            outcome = run_plan(plan, Settings(store, checkpoint_every=0), 2, Signs(writes), retry_failed=True)
            os._exit(3 if outcome.failed else 0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writes)
    return child, reads


def fork_workers() -> None:
    """Let worker processes be forks, which keep open of their parent's files what one that was spawned would have."""
    serve = worker_process.serve

    def serve_alone(connection: Connection, options: str) -> None:
        for number in [int(name) for name in os.listdir("/proc/self/fd")]:  # noqa: PTH208 (as all closed at once)
            if number > 2 and number != connection.fileno():
                with contextlib.suppress(OSError):
                    os.close(number)
        serve(connection, options)

    worker_process.serve = serve_alone
    fork = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: fork  # type: ignore[assignment,misc]


def kill(process: int, what: str, rng: random.Random) -> bool:
    """Whether there was what is to be killed."""
    try:
        if what == "all processes":
            os.killpg(process, signal.SIGKILL)
        elif what == "the main process":
            os.kill(process, signal.SIGKILL)
        else:
            workers = psutil.Process(process).children()
            os.kill(rng.choice(workers).pid, signal.SIGKILL)
    except (ProcessLookupError, psutil.NoSuchProcess, IndexError):
        return False
    return True


def run(plan: Plan, store: Path, rng: random.Random, most: int) -> tuple[Counter[str], int]:
    """Run a plan to its end, killed up to so many times.

    Returns:
        How often each kind of processes was killed, and how often of these a training had a checkpoint.
    """
    kills, interrupted = Counter[str](), 0
    while True:
        process, signs = started(plan, store)
        what = rng.choice(KINDS) if kills.total() < most else None
        left = rng.randint(1, _STEPS) if what else -1
        while left and os.read(signs, 1):
            left -= 1
        if what and not left:
            time.sleep(rng.uniform(0, 0.03))
            if kill(process, what, rng):
                kills[what] += 1
                interrupted += any(store.glob(f"tasks/*/*/{CHECKPOINT}"))
        while os.read(signs, 1 << 16):  # those of a run that lost one worker, or none
            pass
        os.close(signs)
        _, status = os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return kills, interrupted
        if code == 1 or (code == 3 and not kills["one worker"]):
            raise RuntimeError(f"a run of {store} ended with {code}")


def contents(store: Path) -> dict[str, object]:
    """All files of a store, and what they hold; of results what they say but for times."""
    found: dict[str, object] = {}
    for path in sorted(path for path in store.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.name == RESULT:
            says = json.loads(content)
            found[str(path.relative_to(store))] = {
                k: v for k, v in says.items() if k not in ("seconds", "finished", "environment", "digest")
            }
        else:
            found[str(path.relative_to(store))] = hashlib.sha256(content).hexdigest()
    return found


def is_left(path: Path) -> bool:
    """Whether a file is one that a task which is done has no use for."""
    folder = path.parent.parent if path.parent.name.startswith(SCRATCH) else path.parent
    unused = folder != path.parent or path.name in (CHECKPOINT, LEASE, WITHDRAWN)
    return unused and (folder / RESULT).exists()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of all runs together")
    parser.add_argument("--each", type=int, default=40, help="of one run, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # no thread that a fork would miss
    fork_workers()
    rng, total = random.Random(args.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "suite.yaml").write_text(SUITE)
        plan = make_plan(load_suite(folder / "suite.yaml"))
        run(plan, folder / "undisturbed", rng, 0)
        expected = contents(folder / "undisturbed")
        number = 0
        while total.total() < args.kills:
            store, before = folder / str(number), time.monotonic()
            kills, interrupted = run(plan, store, rng, min(args.each, args.kills - total.total()))
            number, total = number + 1, total + kills
            found = contents(store)
            left = {name for name in found if is_left(store / name)}
            differ = sorted(
                name for name in expected.keys() | found.keys() - left if expected.get(name) != found.get(name)
            )
            what = ", ".join(f"{kills[kind]} of {kind}" for kind in KINDS)
            seconds, beside = time.monotonic() - before, f", {len(left)} left beside them" if left else ""
            print(
                f"store {number}: {kills.total()} kills ({what}), {interrupted} within trainings, {seconds:.0f} s: "
                + (
                    f"DIFFERENT: {', '.join(differ)}"
                    if differ
                    else f"the {len(expected)} files of an undisturbed run{beside}"
                ),
                flush=True,
            )
            if differ or not kills:
                return 1
    print(f"{total.total()} kills: " + ", ".join(f"{total[kind]} of {kind}" for kind in KINDS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
