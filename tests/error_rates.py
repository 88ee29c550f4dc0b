"""How often each kind of test says what, without an effect and with one that matters: `python tests/error_rates.py`.

Differences over replicates have a standard deviation of .3 points, where .5 would matter; times, one of .6 of what is
planted. Whole suites are judged, so that what is simulated is what a user gets.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from planted import CONFIGURATIONS, LENGTH, World, suite_text

from lthbench.analysis.claims.judge import judge
from lthbench.analysis.points import MeasuredPoint
from lthbench.suite.load import load_suite

MARGIN = 0.005  # of an accuracy
NOISE = 0.6 * MARGIN
# Of training.
SHIFT = 0.05
GRID = (0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
REPLICATES = (3, 5, 10)
SHOWN = ("supported", "contradicted", "negligible")
# In this order C1, C2, ...
TESTS = {
    "greater": "{test: contrast, plus: {early: ticket}, minus: {early: reinit}, margin: 0.5}",
    "not inferior": "{test: contrast, plus: {late: ticket}, minus: {late: reinit}, than: -0.5}",
    "equivalent": "{test: contrast, plus: {late: random}, minus: {late: shuffled}, expected: equivalent, margin: 0.5}",
    "greater at every level":
        "{test: contrast, plus: {early: ticket}, minus: {early: reinit}, margin: 0.5, over_levels: every}",
    "mixed model": "{test: mixed, rows: {early: {of: {early: ticket}}, other: {of: {early: reinit}}},"
        " fixed: [early, log density], tested: early}",
    "trend": "{test: trend, doses: {late: 'pull {dose} in search'}, none: {late: reinit}}",
    "waiting": "{test: waiting, metric: share_to_converge, censored: share_unconverged, shorter: {early: ticket},"
        " longer: {early: reinit}}",
    "onset": "{test: onset, earlier: {early: barrier}, later: {late: barrier}}",
    "rank": "{test: rank, method: spearman, minimum: 12, of: [{x: {arm: '*', variant: '{config}'},"
        " y: {arm: '*', variant: '{config}', metric: forgetting_events}}]}",
}  # fmt: skip


def claims() -> str:
    experiments = "[imp, controls, regulariser, sensitivity, onset, convergence]"
    return "".join(
        f"C{n}:\n  {{sentence: {name}, origin: none, classes: stated, experiments: {experiments}, tests: "
        f"[{test.replace('{', '{what: it holds, ', 1)}]}}\n"
        for n, (name, test) in enumerate(TESTS.items(), 1)
    )


def simulated(replicates: int, random: np.random.Generator, planted: bool) -> list[MeasuredPoint]:
    """Points where every test's claim is true by a margin, or just not true."""
    w = World("p", replicates, random, NOISE)
    effect = MARGIN if planted else 0.0
    for level in (1, 2):
        w.add("imp", "early", "ticket", level, test_accuracy=0.9 + effect)
        w.add("controls", "early", "reinit", level, test_accuracy=0.9)
        # Half a margin of what may be lost, or all of it.
        w.add("imp", "late", "ticket", level, test_accuracy=0.9 - MARGIN + effect)
        w.add("controls", "late", "reinit", level, test_accuracy=0.9)
        w.add("controls", "late", "random", level, test_accuracy=0.9 + MARGIN - effect)
        w.add("controls", "late", "shuffled", level, test_accuracy=0.9)
        for number, strength in enumerate(("0.001", "0.01", "0.1"), 1):
            gain = effect * number / 3
            w.add("regulariser", "late", f"pull {strength} in search", level, test_accuracy=0.9 + gain)
        for network, share in (("ticket", 0.25 - SHIFT * planted), ("reinit", 0.25)):
            for r in range(replicates):
                # A mean of two levels of a difference of two has this spread, too.
                at = share + 0.6 * SHIFT * random.normal()
                w.add("convergence", "early", network, level, only=r, share_to_converge=at, share_unconverged=at - 0.01)
    for arm, share in (("early", 0.1 - SHIFT * planted), ("late", 0.1)):
        for r in range(replicates):
            onset = share + 0.6 * SHIFT * random.normal() / 2**0.5
            for at in GRID:
                step = round(at * LENGTH)
                w.add("onset", arm, "barrier", 0, step, only=r, test_barrier=0.2 * (at < onset))
    order = np.arange(CONFIGURATIONS) / CONFIGURATIONS
    moved = order + 0.3 * random.normal(size=CONFIGURATIONS) if planted else random.permutation(order)
    for n in range(CONFIGURATIONS):
        w.add("sensitivity", "late", f"optimizer.lr = {n}", test_accuracy=0.8 + 0.1 * order[n],
              forgetting_events=float(moved[n]))  # fmt: skip
    return w.points


def rates(draws: int) -> Iterator[str]:
    """A table in Markdown, in percent of the draws."""
    yield "| test | n | " + " | ".join(f"{truth}: {' / '.join(SHOWN)}" for truth in ("no effect", "one margin")) + " |"
    yield "|---|---|---|---|"
    found: dict[tuple[str, int, bool], Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "claims.yaml").write_text(claims())
        for n in REPLICATES:
            path = Path(folder) / f"{n}.yaml"
            path.write_text(suite_text("claims.yaml", n, "p"))
            suite = load_suite(path)
            for planted in (False, True):
                random = np.random.default_rng(20260101)
                for _ in range(draws):
                    for verdict in judge(suite, simulated(n, random, planted), {}, "suite.yaml"):
                        found.setdefault((verdict.sentence, n, planted), Counter())[verdict.outcome] += 1
    for name in TESTS:
        for n in REPLICATES:
            cells = (found[name, n, planted] for planted in (False, True))
            shown = (" / ".join(f"{100 * cell[kind] / draws:.1f}" for kind in SHOWN) for cell in cells)
            yield f"| {name} | {n} | {' | '.join(shown)} |"


if __name__ == "__main__":
    for line in rates(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(line, flush=True)
