"""The verdicts on a suite's claims as tables: one line per verdict, and one per test that it rests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lthbench.analysis.claims.error_rates import row, titles
from lthbench.analysis.claims.judge import level_of
from lthbench.analysis.claims.verdict import DECIDED, OUTCOMES, SILENT, PartResult, Verdict
from lthbench.analysis.figures.drawing import Grid
from lthbench.analysis.quantity import effect_text, p_text
from lthbench.suite.schema import Suite


def tally(verdicts: Sequence[Verdict]) -> list[tuple[str, int]]:
    """How many verdicts on pairs have each outcome."""
    counts: Counter[str] = Counter(verdict.outcome for verdict in verdicts if verdict.pair is not None)
    return [(outcome, counts[outcome]) for outcome in OUTCOMES if counts[outcome] or outcome not in SILENT]


def interval_title(verdicts: Sequence[Verdict]) -> str:
    """The title of a column of effects, with the level of their intervals, which follows from the suite's `looks`."""
    effects = (part.effect for verdict in verdicts for part in verdict.parts)
    level = next((effect.confidence for effect in effects if effect and effect.confidence), None)
    return "effect" if level is None else f"effect, {100 * level:g} % interval"


def by_pair(verdicts: Sequence[Verdict]) -> Grid:
    """Claims, with their sentences, by pairs, with the outcome in each cell; those run on no pair are left out."""
    pairs = list(dict.fromkeys(verdict.pair or "all pairs" for verdict in verdicts))
    found: dict[str, dict[str, str]] = {}
    for verdict in tested(verdicts):
        found.setdefault(f"{verdict.claim}. {verdict.sentence}", {})[verdict.pair or "all pairs"] = verdict.outcome
    return Grid(("claim", *pairs), [(claim, *(of.get(pair, "-") for pair in pairs)) for claim, of in found.items()])


def tested(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts on claims that were run on at least one pair."""
    run = {verdict.claim for verdict in verdicts if verdict.outcome not in SILENT}
    return [verdict for verdict in verdicts if verdict.claim in run]


def not_run(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """One verdict for each claim that was run on no pair."""
    run = {verdict.claim for verdict in tested(verdicts)}
    return list({verdict.claim: verdict for verdict in verdicts if verdict.claim not in run}.values())


def odds(suite: Suite) -> int:
    """The number of suites in which one end of an interval errs once."""
    return round(1 / level_of(suite))


def rates(suite: Suite) -> Grid | None:
    """How often a test gives each verdict with the suite's replicates; none for a single one, which has no spread."""
    if suite.replicates < 2:
        return None
    return Grid(tuple(titles()), [(f"n = {suite.replicates}", *row(suite.replicates, alpha=level_of(suite)))])


def lines(verdicts: Sequence[Verdict]) -> Grid:
    """One line per verdict, for LaTeX and CSV."""
    columns = ("claim", "pair", "verdict", "sentence", "finding", interval_title(verdicts), "p (Holm)", "n", "origin",
               "notes")  # fmt: skip
    rows = []
    for verdict in verdicts:
        effect = effect_text(verdict.effect) if verdict.effect else ""
        pair = verdict.pair or "all pairs"
        rows.append(
            (verdict.claim, pair, verdict.outcome, verdict.sentence, verdict.finding, effect, p_text(verdict.p),
             counted(verdict), verdict.origin, notes(verdict))
        )  # fmt: skip
    return Grid(columns, rows)


def tests(verdicts: Sequence[Verdict]) -> Grid:
    """One line per test, with all that it rests on."""
    columns = ("claim", "pair", "what is tested", "outcome", "what was found", interval_title(verdicts), "p",
               "p supported", "p contradicted", "p negligible", "also", "n", "margin", "power", "detectable", "outlook",
               "test", "tasks")  # fmt: skip
    rows = []
    for verdict in verdicts:
        if verdict.pair is not None:
            rows += [(verdict.claim, verdict.pair, *_test(part)) for part in verdict.parts]
    return Grid(columns, rows)


def _test(part: PartResult) -> tuple[str, ...]:
    unit = part.effect.unit if part.effect else ""
    also = f"{part.also[0]} {p_text(part.also[1])}" if part.also else ""
    return (
        part.what,
        part.outcome if part.counts else f"{part.outcome} (only reported)",
        "; ".join(filter(None, (part.finding, part.reason))),
        effect_text(part.effect) if part.effect else "",
        p_text(part.p),
        *(p_text(part.p_values.of(outcome)) for outcome in DECIDED),
        also,
        str(part.n),
        "" if part.margin is None else f"{part.margin:g} {unit}".strip(),
        "" if part.power is None else f"{part.power:.2f}",
        "" if part.detectable is None else f"{part.detectable:.2g} {unit}".strip(),
        part.outlook.text if part.outlook else "",
        part.test,
        " ".join(part.keys),
    )


def counted(verdict: Verdict) -> str:
    """The number of planned replicates that the verdict is based on."""
    return "" if verdict.outcome in SILENT else f"{verdict.n}/{verdict.planned}"


def notes(verdict: Verdict) -> str:
    """Remarks on an outcome, and what more replicates would give."""
    outlook = verdict.outlook.text if verdict.outlook else ""
    more = f"{verdict.more.text}: {verdict.more.command}" if verdict.more else ""
    return "; ".join(filter(None, (verdict.caution, verdict.reason, outlook, more)))
