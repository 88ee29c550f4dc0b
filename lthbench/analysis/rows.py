"""The rows of a mixed model, from the evidence of a pair."""

from __future__ import annotations

import math
from typing import Any

from lthbench.analysis.evidence import Evidence, NotPlanned, scale_of
from lthbench.suite.claim_tests import Mixed, Rows, Selection

Row = dict[str, Any]
Place = tuple[str, int, int | None, tuple[tuple[str, str], ...]]


def model_rows(test: Mixed, evidence: Evidence) -> list[Row]:
    """One row an arm, replicate, level and what the NAMEs in the variant stand for; draws are averaged.

    Every row has `value`, `replicate`, `configuration`, `arm`, `level`, `density`, an indicator for each name of rows,
    the covariates and the NAMEs (as numbers where they are some).

    Raises:
        NotPlanned: rows that are not optional are not measured.
    """
    found: list[Row] = []
    for name, rows in test.rows.items():
        try:
            found += _of_group(test, name, rows, evidence)
        except NotPlanned:
            if not rows.optional:
                raise
    common = set.intersection(*(set(row) for row in found)) if found else set()
    return [{key: row[key] for key in row if key in common} for row in found]


def _of_group(test: Mixed, name: str, rows: Rows, evidence: Evidence) -> list[Row]:
    levels = evidence.levels(test.levels, [rows.of])
    numbers = _numbers(rows.of, test.metric, evidence)
    others = {key: _numbers(selection, test.metric, evidence) for key, selection in rows.covariates.items()}
    if rows.minus is not None:
        others["minus"] = _numbers(rows.minus, test.metric, evidence)
    table = []
    for (arm, replicate, level, names), (value, density) in numbers.items():
        if level not in levels and levels != [None]:
            continue
        extra = {key: _beside(there, arm, replicate, level, names) for key, there in others.items()}
        if any(number is None for number in extra.values()):
            continue
        value -= extra.pop("minus", 0.0) or 0.0
        value = (
            math.log(min(max(value, 1e-4), 1 - 1e-4) / (1 - min(max(value, 1e-4), 1 - 1e-4)))
            if test.logit
            else value * scale_of(test.metric)
        )
        configuration = "/".join((name, arm, *(text for _, text in names)))
        row: Row = {"value": value, "replicate": replicate, "configuration": configuration}
        row |= {"arm": arm, "level": level, "density": density}
        row |= {other: float(other == name) for other in test.rows}
        row |= extra | {key: _number(text) for key, text in names}
        table.append(row)
    return table


def _numbers(selection: Selection, metric: str, evidence: Evidence) -> dict[Place, tuple[float, float | None]]:
    """(arm, replicate, level, names) -> the mean of a selection, and its density."""
    metric = selection.metric or metric
    sums: dict[Place, list[tuple[float, float | None]]] = {}
    for point, names in evidence.select(selection):
        if point.status != "ok":
            evidence.lacking.add(point)
        elif metric in point.numbers:
            evidence.keys[point.key] = None
            place = (point.arm, point.replicate, point.level, tuple(sorted(names.items())))
            sums.setdefault(place, []).append((point.numbers[metric], point.density))
    return {place: (math.fsum(v for v, _ in values) / len(values), values[0][1]) for place, values in sums.items()}


def _beside(
    there: dict[Place, tuple[float, float | None]],
    arm: str,
    replicate: int,
    level: int | None,
    names: tuple[tuple[str, str], ...],
) -> float | None:
    """The number beside a row: of its arm, replicate and names, at its level or else at level 0."""
    for at in (level, 0, None):
        for fitting in (names, ()):
            if (arm, replicate, at, fitting) in there:
                return there[arm, replicate, at, fitting][0]
    return None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
