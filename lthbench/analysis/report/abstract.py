"""The beginning of a report: what was found, in a few sentences made from its numbers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lthbench.analysis.claims.verdict import SILENT, Verdict
from lthbench.analysis.quantity import interval_text
from lthbench.analysis.table import Summary
from lthbench.experiments.controls import Controls
from lthbench.experiments.imp import Imp
from lthbench.experiments.stability import Stability
from lthbench.suite.schema import Pair, Suite

_MOST_FINDINGS = 4


def sentences(suite: Suite, verdicts: Sequence[Verdict], summaries: Sequence[Summary]) -> list[str]:
    """Three to six sentences: the first pair's numbers, how many claims hold, and what was found of those decided."""
    found = []
    for name, pair in suite.pairs.items():
        mine = [s for s in summaries if s.pair == name]
        if found := [s for s in (_accuracies(name, pair, mine), _stability(pair, mine), _distances(pair, mine)) if s]:
            break
    return [*found, *_verdicts(verdicts)]


def _accuracies(name: str, pair: Pair, summaries: Sequence[Summary]) -> str:
    """Dense network, ticket and reinitialisation of each arm, at the last level in the pair's claim levels."""
    parts = []
    for arm in pair.arms:
        dense = _first(pair, Imp, summaries, arm, "dense", "test_accuracy")
        tickets = [s for s in _all(pair, Imp, summaries, arm, "ticket", "test_accuracy") if not s.step]
        tested = [s for s in tickets if s.level in pair.claim_levels["range"]] or tickets
        if dense is None or not tested:
            continue
        ticket = max(tested, key=lambda s: s.level or 0)
        share = "" if ticket.density is None else f" with {100 * ticket.density:.3g} % of its weights"
        text = f"of {arm} the dense network reaches {_text(dense)} and the ticket{share} {_text(ticket)}"
        reinit = _all(pair, Controls, summaries, arm, "reinit", "test_accuracy")
        if same := [s for s in reinit if s.level == ticket.level]:
            text += f", reinitialised {_text(same[0])}"
        parts.append(text)
    return f"On {name}, {'; '.join(parts)} (test accuracy, mean and 95 % interval)." if parts else ""


def _stability(pair: Pair, summaries: Sequence[Summary]) -> str:
    barriers = {}
    for arm in pair.arms:
        found = _all(pair, Stability, summaries, arm, "barrier", "test_barrier")
        if at_start := [s for s in found if not s.step and not s.level]:
            barriers[arm] = _text(at_start[0])
    told = ", ".join(f"{text} for {arm}" for arm, text in barriers.items())
    return f"The error barrier between two trainings from one initialisation is {told}." if told else ""


def _distances(pair: Pair, summaries: Sequence[Summary]) -> str:
    found = {arm: _first(pair, Imp, summaries, arm, "dense", "distance_relative") for arm in pair.arms}
    told = ", ".join(f"{_text(s)} for {arm}" for arm, s in found.items() if s is not None)
    return (
        f"Training moves the dense network by this many times the norm of its initialisation: {told}." if told else ""
    )


def _verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    tested = [v for v in verdicts if v.pair is not None and v.outcome not in SILENT]
    if not tested:
        return
    counts = Counter(v.outcome for v in tested)
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in dict.fromkeys(v.outcome for v in tested))
    what = "claim" if len(tested) == 1 else "claims"
    pairs = len({v.pair for v in tested})
    yield f"Of {len(tested)} {what} tested{f' on {pairs} pairs' if pairs > 1 else ''}: {told}."
    for outcome in ("contradicted", "supported"):
        decided = [v for v in tested if v.outcome == outcome and v.finding]
        if decided:
            more = len(decided) - _MOST_FINDINGS
            findings = "; ".join(f"{v.claim}, {v.finding}" for v in decided[:_MOST_FINDINGS])
            yield f"{outcome.capitalize()}: {findings}{f'; and {more} more' if more > 0 else ''}."


def _all(pair: Pair, kind: type, summaries: Sequence[Summary], arm: str, variant: str, metric: str) -> list[Summary]:
    labels = [label for label, experiment in pair.experiments.items() if type(experiment) is kind]
    wanted = (arm, variant, metric)
    return [s for s in summaries if s.experiment in labels and (s.arm, s.variant, s.metric) == wanted]


def _first(pair: Pair, kind: type, summaries: Sequence[Summary], arm: str, variant: str, metric: str) -> Summary | None:
    return next(iter(_all(pair, kind, summaries, arm, variant, metric)), None)


def _text(summary: Summary) -> str:
    return interval_text(summary.metric, summary.interval)
