"""What was found of a claim: its verdict on one pair or over all pairs, the parts it rests on, and their numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lthbench.analysis.stats.paired import Paired

# `negligible`: neither side is shown, and on both the effect is shown to be smaller than what would matter.
# `not applicable`: the suite has nothing that the claim is about, as an arm of its class. `not run`: it has no numbers.
Outcome = Literal["supported", "contradicted", "negligible", "inconclusive", "not applicable", "not run"]
OUTCOMES: tuple[Outcome, ...] = (
    "supported", "contradicted", "negligible", "inconclusive", "not applicable", "not run",
)  # fmt: skip
DECIDED: tuple[Outcome, ...] = ("supported", "contradicted", "negligible")
# Outcomes without numbers for or against the claim.
SILENT: tuple[Outcome, ...] = ("not applicable", "not run")


@dataclass(frozen=True)
class Effect:
    """A size with its interval, both in `unit`.

    Attributes:
        low, high: the interval, each end of which errs with probability alpha; None where there is none (one
            replicate), infinite where it is open.
        unit: `pp` for percentage points, `iterations`, `tau`, `rho`; empty for ratios and distances.
        confidence: of the interval, 1 - 2 alpha; None where there is none.
    """

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class PValues:
    """The p of each outcome: the largest probability, if it is wrong, of numbers as much in its favour; None where it
    cannot be tested."""

    supported: float | None = None
    contradicted: float | None = None
    negligible: float | None = None

    def of(self, outcome: Outcome) -> float | None:
        """The p of an outcome; for an open one, that of support."""
        if outcome == "contradicted":
            return self.contradicted
        return self.negligible if outcome == "negligible" else self.supported


@dataclass(frozen=True)
class Outlook:
    """What more replicates would give if nothing is decided, with the measured spread.

    Attributes:
        half_width: of the interval now.
        n: the smallest, up to 50, at which it is half of what would matter; None if there is none, or no margin.
        half_width_then: expected at n, or else at 50.
        text: this in words.
        spread, gap, decides: what it was made of (`decide.outlook`).
    """

    half_width: float
    n: int | None
    half_width_then: float
    text: str
    spread: Paired
    gap: float
    decides: bool


@dataclass(frozen=True)
class PartResult:
    """One test of a claim on one pair.

    Attributes:
        what: what is compared, in words: the claim of the part.
        finding: a sentence made from the effect; empty if there is none.
        reason: further remarks on the outcome.
        counts: whether the verdict rests on it; else it is only reported.
        test: the test's name, as `paired t, one-sided`.
        also: a second test's name and p, reported beside it (Wilcoxon beside t), or None.
        p_values: of each outcome.
        n, of: how many replicates, or configurations (an arm, or a recipe), the numbers come from.
        margin: the smallest size that would matter, in the effect's unit.
        power: of this n to support the part, were the effect as large as the margin.
        detectable: the effect that this n supports with a power of 80 %, in the effect's unit.
        outlook: what more replicates would give, if it is open.
        keys: the tasks that measured the numbers.
        p: that of its outcome.
    """

    what: str
    outcome: Outcome
    reason: str = ""
    counts: bool = True
    test: str = ""
    effect: Effect | None = None
    also: tuple[str, float] | None = None
    p_values: PValues = PValues()
    n: int = 0
    of: Literal["replicates", "configurations"] = "replicates"
    margin: float | None = None
    power: float | None = None
    detectable: float | None = None
    outlook: Outlook | None = None
    keys: tuple[str, ...] = ()
    finding: str = ""
    p: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", self.p_values.of(self.outcome))


@dataclass(frozen=True)
class More:
    """How to get more replicates for an open verdict, and what they cost.

    Attributes:
        replicates: how many in total, the new value of the suite's `replicates`.
        further: how many of them are new.
        command: the command that then runs them.
        trainings: of the further ones.
        hours: of all their tasks, estimated from those in this store; None if unknown.
    """

    replicates: int
    further: int
    command: str
    trainings: int
    hours: float | None

    @property
    def text(self) -> str:
        """The cost in words."""
        hours = "" if self.hours is None else f", about {self.hours:.2g} h as the others took"
        return f"{self.further} further replicates, {self.trainings:,} trainings{hours}"


@dataclass(frozen=True)
class Verdict:
    """What was found of a claim on one pair, or over all pairs.

    Attributes:
        claim: its name, C1 to C23.
        sentence: the claim in our words.
        origin: where it is made, as the claims file says.
        pair: the pair; None is over all pairs.
        finding: what was found, a sentence made from the effect of the decisive part; empty where there is none.
        reason: what else there is to know: why it is open, or what is missing.
        caution: a reservation about the outcome: a look for which no share of the error rate was kept.
        p_alone: of the parts together on this pair: all must hold, so for support the largest; for the others the
            smallest of those that do not hold, times the number of parts.
        p_values: the same by Holm over the pairs; the outcome rests on these.
        p: that of its outcome.
        n, planned: replicates done and planned (over all pairs, pairs). No verdict is given before all are done.
        outlook, more: what more replicates would give, and how to get them, if it is open.
        looks: with how many planned replicates its numbers were seen before.
        command: the command that runs a claim that was not run, or None.
        lacks: what must be added to the suite before that; may be empty.
        arms: which arms counted as early- and late-stable, and by which rule.
        parts: the tests; over all pairs, a part for each pair.
        decisive: the index of the part whose effect speaks for the claim, or None.
    """

    claim: str
    sentence: str
    origin: str
    pair: str | None
    outcome: Outcome
    reason: str
    finding: str = ""
    caution: str = ""
    p_alone: PValues = PValues()
    p_values: PValues = PValues()
    n: int = 0
    planned: int = 0
    outlook: Outlook | None = None
    more: More | None = None
    looks: tuple[int, ...] = ()
    command: str | None = None
    lacks: str = ""
    arms: str = ""
    parts: tuple[PartResult, ...] = ()
    decisive: int | None = None
    p: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", self.p_values.of(self.outcome))

    @property
    def effect(self) -> Effect | None:
        """The effect of the decisive part."""
        return None if self.decisive is None else self.parts[self.decisive].effect

    @property
    def keys(self) -> tuple[str, ...]:
        """The tasks that the verdict rests on, each once."""
        return tuple(dict.fromkeys(key for part in self.parts for key in part.keys))
