"""The rows of a mixed model, from the evidence of a pair."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lthbench.analysis.claims.evidence import Evidence, NotPlanned, scale_of
from lthbench.suite.claim_tests import Mixed, Rows, Selection

Row = dict[str, Any]
Place = tuple[str, int, int | None, tuple[tuple[str, str], ...]]


@dataclass
class Number:
    """The mean of a selection at one point, with its density and the tasks that measured it."""

    values: list[float]
    density: float | None
    keys: frozenset[str]

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)


def model_rows(test: Mixed, evidence: Evidence) -> list[Row]:
    """One row per arm, replicate, level and values of the NAMEs in the variant; draws are averaged.

    A training that has several names (an arm's own recipe in a sensitivity experiment, say) has one row, and all rows
    of the recipe that these names share are one configuration. A row without a covariate of the fixed terms is left
    out, which the evidence records.

    Every row has `value`, `replicate`, `configuration`, `arm`, `level`, `density`, an indicator for each name of rows,
    the covariates and the NAMEs (as numbers where they can be read as such).

    Raises:
        NotPlanned: rows that are not optional are not measured.
    """
    found: list[Row] = []
    names: dict[frozenset[str], str] = {}  # tasks of a row -> the configuration that had them first
    same: dict[str, str] = {}  # configuration -> the earlier one with which it shares a training
    for name, rows in test.rows.items():
        try:
            for keys, row in _of_group(test, name, rows, evidence):
                first = names.setdefault(keys, row["configuration"])
                if first == row["configuration"]:
                    found.append(row)
                else:
                    same[row["configuration"]] = same.get(first, first)
        except NotPlanned:
            if not rows.optional:
                raise
    for row in found:
        row["configuration"] = same.get(row["configuration"], row["configuration"])
    common = set.intersection(*(set(row) for row in found)) if found else set()
    return [{key: row[key] for key in row if key in common} for row in found]


def _of_group(test: Mixed, name: str, rows: Rows, evidence: Evidence) -> Iterator[tuple[frozenset[str], Row]]:
    """The rows of one group, each with the tasks of its value."""
    levels = evidence.levels(test.levels, [rows.of])
    numbers = _numbers(rows.of, test.metric, evidence)
    others = {key: _numbers(selection, test.metric, evidence) for key, selection in rows.covariates.items()}
    if rows.minus is not None:
        others["minus"] = _numbers(rows.minus, test.metric, evidence)
    needed = {"minus", *(part.split()[-1] for term in test.fixed for part in term.split(" x "))}
    for (arm, replicate, level, names), number in numbers.items():
        if level not in levels and levels != [None]:
            continue
        extra = {key: _beside(there, arm, replicate, level, names) for key, there in others.items()}
        configuration = "/".join((name, arm, *(text for _, text in names)))
        absent = [key for key in needed if extra.get(key, 0.0) is None]
        if absent:
            metric = (rows.covariates.get(absent[0]) or rows.of).metric or test.metric
            evidence.leave_out(number.keys, configuration, metric, [replicate])
            continue
        value = number.mean - (extra.pop("minus", 0.0) or 0.0)
        value = (
            math.log(min(max(value, 1e-4), 1 - 1e-4) / (1 - min(max(value, 1e-4), 1 - 1e-4)))
            if test.logit
            else value * scale_of(test.metric)
        )
        row: Row = {"value": value, "replicate": replicate, "configuration": configuration}
        row |= {"arm": arm, "level": level, "density": number.density}
        row |= {other: float(other == name) for other in test.rows}
        row |= {key: there for key, there in extra.items() if there is not None}
        row |= {key: _number(text) for key, text in names}
        yield number.keys, row


def _numbers(selection: Selection, metric: str, evidence: Evidence) -> dict[Place, Number]:
    """(arm, replicate, level, names) -> the number of a selection there."""
    metric = selection.metric or metric
    found: dict[Place, Number] = {}
    for point, names in evidence.select(selection):
        if point.status != "ok":
            evidence.lacking.add(point)
        elif metric in point.numbers:
            evidence.keys[point.key] = None
            place = (point.arm, point.replicate, point.level, tuple(sorted(names.items())))
            number = found.setdefault(place, Number([], point.density, frozenset()))
            number.values.append(point.numbers[metric])
            number.keys |= {point.key}
    return found


def _beside(
    there: dict[Place, Number],
    arm: str,
    replicate: int,
    level: int | None,
    names: tuple[tuple[str, str], ...],
) -> float | None:
    """The further number of a row: of its arm, replicate and names, at its level or else at level 0."""
    for at in (level, 0, None):
        for fitting in (names, ()):
            if (arm, replicate, at, fitting) in there:
                return there[arm, replicate, at, fitting].mean
    return None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
