"""What was found of a claim: its verdict on one pair or over all pairs, the parts it rests on, and their numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["supported", "contradicted", "inconclusive", "not run"]


@dataclass(frozen=True)
class Effect:
    """A size with its interval, both in `unit`.

    Attributes:
        low, high: the confidence interval, at 1 - alpha; None where there is none (one replicate), infinite where
            it is open.
        unit: `pp` for percentage points, `iterations`, `tau`, `rho`; empty for ratios and distances.
    """

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""


@dataclass(frozen=True)
class Part:
    """One test of a claim on one pair.

    Attributes:
        what: what is compared, in words.
        counts: whether the verdict rests on it; else it is only reported.
        test: the test's name, as `paired t, one-sided`.
        also: a second test's name and p, reported beside it (Wilcoxon beside t), or None.
        p: that the numbers come about though the part is false; small values support it.
        p_against: that they come about though the part is true; small values contradict it.
        n, of: how many replicates, or configurations (an arm, or a recipe), the numbers come from.
        margin: the smallest size that would matter, in the effect's unit.
        power: of this n to support the part, were the effect as large as the margin.
        detectable: the effect that this n supports with a power of 80 %, in the effect's unit.
        seeds: replicates with which the margin is resolved at 80 %; None where the spread does not say.
        keys: the tasks that measured the numbers.
    """

    what: str
    outcome: Outcome
    reason: str = ""
    counts: bool = True
    test: str = ""
    effect: Effect | None = None
    also: tuple[str, float] | None = None
    p: float | None = None
    p_against: float | None = None
    n: int = 0
    of: Literal["replicates", "configurations"] = "replicates"
    margin: float | None = None
    power: float | None = None
    detectable: float | None = None
    seeds: int | None = None
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What was found of a claim on one pair, or over all pairs.

    Attributes:
        claim: its name, C1 to C23.
        sentence: the claim in our words.
        origin: where it is made, as the claims file says.
        pair: the pair; None is over all pairs.
        reason: why the outcome is what it is, in words.
        p, p_against: of the parts together: the largest p, since all must hold; the smallest p against that any does
            not, times their number.
        adjusted_p, adjusted_against: by Holm over the pairs; the outcome rests on these.
        n, planned: replicates done and planned (over all pairs, pairs). No verdict is given before all are done.
        seeds: replicates that would settle an inconclusive verdict; None where that is not known.
        command: what runs a claim that was not run, or None.
        arms: which arms were taken as early- and late-stable, and by which rule.
        parts: the tests; over all pairs, a part for each pair.
        decisive: the index of the part whose effect speaks for the claim, or None.
    """

    claim: str
    sentence: str
    origin: str
    pair: str | None
    outcome: Outcome
    reason: str
    p: float | None = None
    p_against: float | None = None
    adjusted_p: float | None = None
    adjusted_against: float | None = None
    n: int = 0
    planned: int = 0
    seeds: int | None = None
    command: str | None = None
    arms: str = ""
    parts: tuple[Part, ...] = ()
    decisive: int | None = None

    @property
    def effect(self) -> Effect | None:
        """The effect of the decisive part."""
        return None if self.decisive is None else self.parts[self.decisive].effect

    @property
    def keys(self) -> tuple[str, ...]:
        """The tasks that the verdict rests on, each once."""
        return tuple(dict.fromkeys(key for part in self.parts for key in part.keys))
