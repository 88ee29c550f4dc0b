"""How often the rule of verdicts gives each outcome, by simulation: `python -m lthbench.analysis.claims.error_rates`.

A claim has one test on one pair. Its differences over replicates are normal, with a standard deviation of .6 margins:
.3 points of accuracy, where .5 would matter (Renda et al. 2020, table of ResNet-20: .1 to .35 for an arm).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import special

from lthbench.analysis.claims.decide import outcome_of, rule
from lthbench.analysis.claims.verdict import DECIDED
from lthbench.analysis.stats.paired import Paired

REPLICATES = (3, 5, 10, 20)
# In margins.
EFFECTS = (-1.0, -0.5, -0.2, 0.0, 0.2, 0.5, 1.0)
SPREAD = 0.6
_LOG_DRAWS = 10
_SEED = 20200105  # any; fixed, so that the table is the same each time


def rates(
    n: int, effect: float, *, expected: str = "greater", than: float = 0.0, margin: float = 1.0, spread: float = SPREAD,
    alpha: float = 0.05,
) -> dict[str, float]:  # fmt: skip
    """Outcome -> the share of simulated suites in which it is found.

    Args:
        n: replicates.
        effect: the true one, as `than`, `margin` and `spread` in margins.
    """
    from scipy.stats import qmc

    # Evenly spread quantiles of mean and spread (Sobol): less error than with as many independent draws.
    of_mean, of_spread = qmc.Sobol(2, seed=_SEED).random_base2(_LOG_DRAWS).T
    means = effect + spread / math.sqrt(n) * special.ndtri(of_mean)
    spreads = spread * np.sqrt(2 * special.gammaincinv((n - 1) / 2, of_spread) / (n - 1))
    found = Counter(
        outcome_of(rule(Paired(mean, deviation, n), expected, than, margin), alpha)
        for mean, deviation in zip(means.tolist(), spreads.tolist(), strict=True)
    )
    return {outcome: count / len(means) for outcome, count in found.items()}


def row(n: int, effects: Sequence[float] = EFFECTS, alpha: float = 0.05) -> list[str]:
    """Supported / contradicted / negligible, in percent, at each true effect."""
    cells = [rates(n, effect, alpha=alpha) for effect in effects]
    return [" / ".join(f"{100 * cell.get(outcome, 0):.0f}" for outcome in DECIDED) for cell in cells]


def titles(effects: Sequence[float] = EFFECTS) -> list[str]:
    """The titles of the columns."""
    return ["true effect, in margins", *(f"{effect:+g}" if effect else "0" for effect in effects)]


def table(replicates: Sequence[int] = REPLICATES) -> Iterator[str]:
    """The rows of some numbers of replicates, in Markdown."""
    yield f"| {' | '.join(titles())} |"
    yield "|---" * len(titles()) + "|"
    for n in replicates:
        yield f"| n = {n} | {' | '.join(row(n))} |"


if __name__ == "__main__":
    print("\n".join(table()))
