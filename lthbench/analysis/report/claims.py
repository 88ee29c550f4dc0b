"""The verdicts on a suite's claims as tables: one line a verdict, and one a test that it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lthbench.analysis.figures.drawing import Grid
from lthbench.analysis.quantity import effect_text, p_text
from lthbench.analysis.verdict import Part, Verdict

OUTCOMES = ("supported", "contradicted", "inconclusive", "not run")


def tally(verdicts: Sequence[Verdict]) -> list[tuple[str, int]]:
    """How many verdicts on pairs have each outcome."""
    counts: Counter[str] = Counter(verdict.outcome for verdict in verdicts if verdict.pair is not None)
    return [(outcome, counts[outcome]) for outcome in OUTCOMES]


def by_pair(verdicts: Sequence[Verdict]) -> Grid:
    """Claims by pairs, with the outcome in each cell."""
    pairs = list(dict.fromkeys(verdict.pair or "all pairs" for verdict in verdicts))
    found: dict[str, dict[str, str]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.claim, {})[verdict.pair or "all pairs"] = verdict.outcome
    return Grid(("claim", *pairs), [(claim, *(of.get(pair, "-") for pair in pairs)) for claim, of in found.items()])


def lines(verdicts: Sequence[Verdict]) -> Grid:
    """One line a verdict: for LaTeX and CSV."""
    columns = ("claim", "pair", "verdict", "effect, 95 % interval", "p (Holm)", "n", "sentence", "origin", "finding")
    rows = []
    for verdict in verdicts:
        effect = effect_text(verdict.effect) if verdict.effect else ""
        pair = verdict.pair or "all pairs"
        rows.append(
            (verdict.claim, pair, verdict.outcome, effect, p_text(deciding_p(verdict)), counted(verdict),
             verdict.sentence, verdict.origin, finding(verdict))
        )  # fmt: skip
    return Grid(columns, rows)


def tests(verdicts: Sequence[Verdict]) -> Grid:
    """One line a test, with all that it rests on."""
    columns = ("claim", "pair", "what is tested", "outcome", "effect, 95 % interval", "p", "p against", "also", "n",
               "margin", "power", "detectable", "replicates to settle", "test", "tasks")  # fmt: skip
    rows = []
    for verdict in verdicts:
        if verdict.pair is not None:
            rows += [(verdict.claim, verdict.pair, *_test(part)) for part in verdict.parts]
    return Grid(columns, rows)


def _test(part: Part) -> tuple[str, ...]:
    unit = part.effect.unit if part.effect else ""
    also = f"{part.also[0]} {p_text(part.also[1])}" if part.also else ""
    return (
        part.what + (f" ({part.reason})" if part.reason else ""),
        part.outcome if part.counts else f"{part.outcome} (only reported)",
        effect_text(part.effect) if part.effect else "",
        p_text(part.p),
        p_text(part.p_against),
        also,
        str(part.n),
        "" if part.margin is None else f"{part.margin:g} {unit}".strip(),
        "" if part.power is None else f"{part.power:.2f}",
        "" if part.detectable is None else f"{part.detectable:.2g} {unit}".strip(),
        "" if part.seeds is None else f"{part.seeds:,}",
        part.test,
        " ".join(part.keys),
    )


def deciding_p(verdict: Verdict) -> float | None:
    """The p that the outcome rests on, adjusted over pairs."""
    return verdict.adjusted_against if verdict.outcome == "contradicted" else verdict.adjusted_p


def counted(verdict: Verdict) -> str:
    """How many of the planned replicates the verdict comes from."""
    return "" if verdict.outcome == "not run" else f"{verdict.n}/{verdict.planned}"


def finding(verdict: Verdict) -> str:
    """Why the outcome is what it is, and what would settle it."""
    settle = f"about {verdict.seeds:,} replicates would settle it" if verdict.seeds is not None else ""
    return "; ".join(filter(None, (verdict.reason, settle)))
