"""Fuzz the readers of files: `ci/fuzz.py [READER...] --inputs N --seed N --begin N`.

Input n of a seed is always the same, so that a run goes on at `--begin`, and a fault is found again by its number.
Prints a line per reader, and each kind of fault once; ends with 1 where there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / part) for part in ("", "unit"))]

from readers import Fault, Reader, readers  # noqa: E402


def fuzz(name: str, reader: Reader, seed: int, begin: int, end: int) -> int:
    """Let a reader read the inputs of a seed from `begin` to `end`; returns how many show a fault."""
    counts: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    before = time.process_time()
    for number in range(begin, end):
        content = reader.input(seed, number)
        try:
            counts[reader.judge(content)] += 1
        except Fault as fault:
            counts["faults"] += 1
            kind = f"{type(fault.__cause__).__name__} {str(fault)[:40]}"
            seen[kind] += 1
            if seen[kind] == 1:
                print(f"{name}, input {number}: {str(fault)[:300]}\n    {content[:300]!r}", flush=True)
    row = [f"{end - begin:,}", *(f"{counts[each]:,}" for each in ("accepted", "refused", "faults"))]
    seconds = time.process_time() - before
    print(f"{name:34}" + "".join(f"{cell:>12}" for cell in row) + f"{seconds:>10.0f} s", flush=True)
    return counts["faults"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help="all, unless given")
    parser.add_argument("--inputs", type=int, default=100_000, help="of each reader; fewer where an input takes long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--begin", type=int, default=0, metavar="N", help="the first input")
    parser.add_argument("--equal", action="store_true", help="as many inputs of each reader, however long they take")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, readers(Path(folder)) as known:
        if unknown := set(args.readers) - set(known):
            parser.error(f"no reader is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        print(f"{'reader':34}" + "".join(f"{head:>12}" for head in ("inputs", "accepted", "refused", "faults")))
        faults = 0
        for name in args.readers or known:
            inputs = args.inputs if args.equal else args.inputs // known[name].cost
            faults += fuzz(name, known[name], args.seed, args.begin, args.begin + inputs)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
