"""The claims that a suite tests: what a claims file says, validated.

A claims file maps names to claims; each has a sentence, its origin, the experiments it needs and the tests that must
all hold. What a test compares, at which levels, by which test and with which margin is fixed there before any result is
seen. A selection is written `{ARM: VARIANT}`, or with more keys `{arm: ARM, variant: VARIANT, ...}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from lthbench.experiments import EXPERIMENTS
from lthbench.suite.claim_tests import Frozen, OtherClaim, Selection, Test
from lthbench.suite.validation_errors import nearest, read_as
from lthbench.suite.yaml_tree import Located, SuiteError, read_yaml


class Choice(Frozen):
    """One of several variants, chosen on the validation split by its mean over replicates (and levels).

    Attributes:
        among: the variants, with `{chosen}` in the place of what is chosen.
        by: the metric that is to be largest.
    """

    among: Selection
    by: str = "validation_accuracy"


class Claim(Frozen):
    """A falsifiable sentence of the paper.

    Attributes:
        sentence: in our words.
        origin: where it is made, in free words: a paper's section or figure, or that it is inferred.
        experiments: the kinds of experiment it needs.
        pairs: patterns of the pairs it is about; all of them unless given.
        classes: whether measured onsets, where there are any, or the suite's `class` of each arm say which are early-
            and which late-stable.
        choose: what is chosen on the validation split before anything is tested.
        over_pairs: over all pairs it has the outcome of `every` pair on which the suite can test it, or of `several`
            (two, unless there is one) if fewer have the opposite outcome.
        tests: all must hold.
    """

    sentence: str
    origin: Annotated[str, Field(min_length=1)]
    experiments: tuple[str, ...]
    pairs: tuple[str, ...] = ("*",)
    classes: Literal["measured", "stated"] = "measured"
    choose: Choice | None = None
    over_pairs: Literal["every", "several"] = "every"
    tests: Annotated[tuple[Test, ...], Field(min_length=1)]

    @field_validator("experiments")
    @classmethod
    def _exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for kind in value:
            if kind not in EXPERIMENTS:
                raise ValueError(f"no experiment is called '{kind}'{nearest(kind, EXPERIMENTS)}")
        return value


def read_claims(files: Iterable[Path]) -> tuple[dict[str, Claim], dict[str, Located]]:
    """Read and validate claims files: the claims, and what the files say of each, with its place.

    Raises:
        SuiteError: with one line per fault.
    """
    claims: dict[str, Claim] = {}
    written: dict[str, Located] = {}
    faults: list[str] = []
    for file in files:
        tree = read_yaml(file)
        if not isinstance(tree.value, dict):
            raise SuiteError(f"{tree.place}: expected a mapping of claims, name to sentence, origin and tests")
        for name, node in tree.value.items():
            if name in claims:
                raise SuiteError(f"{node.place}: {name}: another file has a claim of this name")
            written[name] = node
            try:
                claims[name] = read_as(Claim, node, (name,))
            except SuiteError as error:
                faults += str(error).splitlines()
    before: set[str] = set()
    claims = dict(sorted(claims.items(), key=lambda item: _natural(item[0])))
    for name, claim in claims.items():
        for test in claim.tests:
            if isinstance(test, OtherClaim) and test.claim not in before:
                faults.append(f"{name}: claim: '{test.claim}' is not an earlier claim")
        before.add(name)
    if faults:
        raise SuiteError("\n".join(faults))
    return claims, written


def _natural(name: str) -> list[tuple[str, int]]:
    """C2 before C10."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", name)]
