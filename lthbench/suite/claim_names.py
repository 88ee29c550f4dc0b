"""Whether the names in claims exist: arms, variants, metrics, and sets of levels.

A suite may leave things out (an experiment, a strength): the claim is then not run on it. A name that no arm has, or
that the claim's kinds of experiment can never give, is a misspelling.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from pydantic import BaseModel

from lthbench.experiments import EXPERIMENTS
from lthbench.suite.claim_tests import Agreement, Cost, Onset, OtherClaim, Selection
from lthbench.suite.claims import Claim
from lthbench.suite.schema import Pair
from lthbench.suite.validation_errors import nearest
from lthbench.suite.yaml_tree import Located

CLASSES = ("early", "late")
_Path = tuple[str | int, ...]


def claim_faults(claims: Mapping[str, Claim], written: Mapping[str, Located], pairs: Mapping[str, Pair]) -> list[str]:
    """One line for each name in claims that does not exist, with its place and the nearest name that does.

    Args:
        written: what the files say of each claim.
        pairs: those of the suite.
    """
    lines = []
    for name, claim in claims.items():
        about = {p: pair for p, pair in pairs.items() if any(fnmatchcase(p, pattern) for pattern in claim.pairs)}
        for path, message in _faults(claim, about):
            keys = ".".join([name, *(key for key in path if isinstance(key, str))])
            lines.append(f"{written[name].at(path).place}: {keys}: {message}")
    return list(dict.fromkeys(lines))


def needed_kinds(claim: Claim) -> list[str]:
    """The kinds of experiment that a claim rests on, without those that only give what is reported beside it."""
    tests = [test for test in claim.tests if test.counts] or claim.tests
    variants = {s.variant for n, test in enumerate(tests) for _, s in _within(test, ("tests", n))}
    counted = {kind for test in tests if isinstance(test, Cost) for kind in test.experiments}
    return [kind for kind in claim.experiments if kind in counted or any(_gives(kind, variant) for variant in variants)]


def _faults(claim: Claim, pairs: Mapping[str, Pair]) -> Iterator[tuple[_Path, str]]:
    arms = [*CLASSES, "*", *dict.fromkeys(arm for pair in pairs.values() for arm in pair.arms)]
    variants = [variant for kind in claim.experiments for variant in EXPERIMENTS[kind].variants]
    for path, selection, metric in _selections(claim):
        if pairs and selection.arm not in arms:
            yield path, f"no arm is called '{selection.arm}'{nearest(selection.arm, arms)}"
        kinds = [kind for kind in claim.experiments if _gives(kind, selection.variant)]
        if not kinds:
            what = f"none of {', '.join(claim.experiments) or 'no experiments'} measures '{selection.variant}'"
            yield path, what + nearest(selection.variant, dict.fromkeys(variants))
            continue
        metrics = list(dict.fromkeys(m for kind in kinds for m in EXPERIMENTS[kind].metrics))
        if metric is not None and not any(fnmatchcase(metric, known) for known in metrics):
            yield path, f"no metric of '{selection.variant}' is called '{metric}'{nearest(metric, metrics)}"
    for number, test in enumerate(claim.tests):
        if isinstance(test, Cost):
            for kind in test.experiments:
                if kind not in EXPERIMENTS:
                    known = nearest(kind, EXPERIMENTS)
                    yield ("tests", number, "experiments"), f"no experiment is called '{kind}'{known}"
        if isinstance(test, Cost | OtherClaim):
            continue
        for levels in (test.levels,) if isinstance(test.levels, str) else test.levels:
            for name, pair in pairs.items():
                if levels not in pair.claim_levels:
                    known = nearest(levels, pair.claim_levels)
                    yield ("tests", number, "levels"), f"{name} has no claim_levels '{levels}'{known}"


def _selections(claim: Claim) -> Iterator[tuple[_Path, Selection, str | None]]:
    """Where a claim selects what, and the metric that it reads of it; None where the test itself says which."""
    if claim.choose is not None:
        yield ("choose", "among"), claim.choose.among, claim.choose.by
    for number, test in enumerate(claim.tests):
        for path, selection in _within(test, ("tests", number)):
            metric = selection.metric or test.metric
            # A barrier, whatever the test's metric.
            its_own = isinstance(test, Onset) or (isinstance(test, Agreement) and path[-1] == "barrier")
            yield path, selection, None if its_own else metric
            if (censored := getattr(test, "censored", None)) is not None:
                yield path, selection, censored


def _within(value: Any, path: _Path) -> Iterator[tuple[_Path, Selection]]:
    if isinstance(value, Selection):
        yield path, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _within(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _within(child, (*path, name))
    elif isinstance(value, tuple):
        for number, child in enumerate(value):
            yield from _within(child, (*path, number))


@cache
def _gives(kind: str, variant: str) -> bool:
    """Whether experiments of a kind can give a variant that a selection's pattern matches."""
    pattern = re.sub(r"\{\w+\}", "*", variant)
    return any(overlap(pattern, known) for known in EXPERIMENTS[kind].variants)


def overlap(a: str, b: str) -> bool:
    """Whether some text fits both of two patterns in which `*` stands for any text."""
    ends = {0}  # the places in b that the part of a so far can come to
    for letter in a:
        if letter == "*":
            ends = set(range(min(ends), len(b) + 1)) if ends else ends
        else:
            ends = {
                end
                for start in _past_stars(ends, b)
                for end in ((start,) if b[start : start + 1] == "*" else ())
                + ((start + 1,) if b[start : start + 1] == letter else ())
            }
    return len(b) in _past_stars(ends, b)


def _past_stars(places: set[int], pattern: str) -> set[int]:
    """Places in a pattern, and those that its `*` there can be skipped to."""
    found = set(places)
    for place in places:
        while pattern[place : place + 1] == "*":
            place += 1
            found.add(place)
    return found
