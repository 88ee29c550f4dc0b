"""The claims that a suite tests: what a claims file says, validated.

A claims file maps names to claims; each has a sentence, its origin, the experiments it needs and the tests that must
all hold. What a test compares, at which levels, by which test and with which margin is fixed there, before any
result is seen. A selection is written `{ARM: VARIANT}`, or with more keys `{arm: ARM, variant: VARIANT, ...}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lthbench.suite.faults import explain
from lthbench.suite.located import SuiteError, read_yaml

Levels = str | Annotated[tuple[str, ...], Field(min_length=1)]
Expected = Literal["greater", "less", "equivalent"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Selection(_Frozen):
    """Some readings of one pair; a replicate's value is their mean.

    Attributes:
        arm: `early` or `late`, all arms of that class; `*`, all arms; or an arm's name.
        variant: what was measured. `*` stands for anything, `{NAME}` for what is then called NAME, `{chosen}` for the
            claim's choice.
        metric: the number that is read; the test's unless given.
        level: at this level alone, whatever the test's levels.
        rewound: whether the weights are those of a step after initialisation; None is either.
    """

    arm: str
    variant: str
    metric: str | None = None
    level: Annotated[int, Field(ge=0)] | None = None
    rewound: bool | None = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) == 1 and not set(value) & set(cls.model_fields):
            ((arm, variant),) = value.items()
            return {"arm": arm, "variant": variant}
        return value


class Choice(_Frozen):
    """One of several variants, chosen on the validation split by its mean over replicates (and levels).

    Attributes:
        among: the variants, with `{chosen}` in the place of what is chosen.
        by: the metric that is to be largest.
    """

    among: Selection
    by: str = "validation_accuracy"


class _Test(_Frozen):
    """What all tests have.

    Attributes:
        what: the comparison in words.
        counts: whether the claim rests on it, or it is only reported.
        levels: a named set of the pair's `claim_levels`, or several.
    """

    what: str
    counts: bool = True
    metric: str = "test_accuracy"
    levels: Levels = "range"


class Contrast(_Test):
    """The mean of some selections minus that of others, averaged over levels within a replicate, against a number.

    Supported by a one-sided paired t test of `than` (by two of them, for `equivalent` within `margin`). Contradicted
    where the effect is shown to be less than `than` by one, or to miss it by less than `margin`.

    Attributes:
        times: what the difference is multiplied by: 2 makes a difference of differences of four selections.
        than: in the effect's unit, percentage points for accuracies.
        margin: the smallest effect beyond `than` that would matter.
        over_levels: `every`: it must hold at each level, not only on average.
    """

    test: Literal["contrast"]
    plus: tuple[Selection, ...]
    minus: tuple[Selection, ...] = ()
    times: float = 1
    expected: Expected = "greater"
    than: float = 0
    margin: Annotated[float, Field(ge=0)] = 0
    over_levels: Literal["mean", "every"] = "mean"

    @field_validator("plus", "minus", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _margin_for_equivalence(self) -> Contrast:
        if self.expected == "equivalent" and not self.margin:
            raise ValueError("expected: equivalent needs a margin above 0")
        return self


class Onset(_Test):
    """The first step of stability, known to lie in an interval, comes earlier in one class of arms than in another.

    Attributes:
        earlier, later: selections of barriers.
        threshold: the barrier under which a network is stable, as a fraction.
    """

    test: Literal["onset"]
    earlier: Selection
    later: Selection
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Waiting(_Test):
    """A time until something happens, the metric, is shorter in one selection than in another.

    Attributes:
        censored: the metric that says until when it had not happened, where the first one is missing.
    """

    test: Literal["waiting"]
    shorter: Selection
    longer: Selection
    censored: str


class Trend(_Test):
    """Values ascend with the dose, from none up to the chosen one (Page 1963).

    Attributes:
        doses: a selection with `{dose}` in its variant.
        none: the selection without any.
    """

    test: Literal["trend"]
    doses: Selection
    none: Selection
    expected: Literal["greater", "less"] = "greater"


class Axes(_Frozen):
    """Two numbers of each configuration: of each arm, and of what each `{NAME}` in the variants stands for.

    Attributes:
        minus: subtracted from x.
    """

    x: Selection
    y: Selection
    minus: Selection | None = None


class Rank(_Test):
    """A rank correlation over configurations (means over replicates), with a permutation test over them.

    The metric `onset` of barriers is the middle of the interval that the onset lies in.

    Attributes:
        of: where the configurations are read.
        minimum: how many configurations a verdict needs.
    """

    test: Literal["rank"]
    of: tuple[Axes, ...]
    method: Literal["spearman", "kendall"]
    expected: Literal["greater", "less"] = "greater"
    than: float = 0
    minimum: Annotated[int, Field(ge=4)] = 4


class Rows(_Frozen):
    """Rows of a mixed model: a value for each arm, replicate, level, and each `{NAME}` in the variant.

    Attributes:
        minus: subtracted from a row's value.
        covariates: name -> a further number; NAMEs of its variant are those of the row.
        optional: left out where the suite does not measure them.
    """

    of: Selection
    minus: Selection | None = None
    covariates: dict[str, Selection] = {}
    optional: bool = False


class Mixed(_Test):
    """A coefficient of a linear mixed model with a random intercept for each replicate.

    Attributes:
        rows: by name, which is 1 for these rows and 0 for others.
        fixed: terms: the name of some rows, of a covariate, `level`, `density`, a NAME of the variants, or `arm`; with
            `log` or `factor` before it; or two of them with ` x ` between.
        tested: the term whose coefficient is tested.
        over: what the test counts as independent: replicates; or, for a covariate that recipes differ in,
            configurations, an arm with what the NAMEs of its variant stand for.
        logit: whether values, fractions, are taken as logits.
    """

    test: Literal["mixed"]
    rows: Annotated[dict[str, Rows], Field(min_length=1)]
    fixed: tuple[str, ...]
    tested: str
    over: Literal["replicates", "configurations"] = "replicates"
    expected: Literal["greater", "less"] = "greater"
    logit: bool = False

    @model_validator(mode="after")
    def _tested_is_fixed(self) -> Mixed:
        if self.tested not in self.fixed:
            raise ValueError(f"tested: '{self.tested}' is none of fixed ({', '.join(self.fixed)})")
        return self


class Agreement(_Test):
    """A barrier under the threshold agrees with matching, over the arms and levels of a replicate (Cohen's kappa)."""

    test: Literal["agreement"]
    barrier: Selection
    accurate: Selection
    reference: Selection
    within: float
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Cost(_Test):
    """What some experiments cost, in trainings of the dense network, for one arm and replicate; a count, no test."""

    test: Literal["cost"]
    experiments: tuple[str, ...]
    than: float


class OtherClaim(_Test):
    """Another claim holds on this pair."""

    test: Literal["claim"]
    claim: str


Test = Annotated[
    Contrast | Onset | Waiting | Trend | Rank | Mixed | Agreement | Cost | OtherClaim, Field(discriminator="test")
]


class Claim(_Frozen):
    """A falsifiable sentence of the paper.

    Attributes:
        sentence: in our words.
        origin: where the paper makes it, or that it is inferred.
        experiments: the kinds of experiment it needs.
        pairs: patterns of the pairs it is about; all of them unless given.
        classes: whether measured onsets, where there are any, or names say which arms are early- and late-stable.
        choose: what is chosen on the validation split before anything is tested.
        over_pairs: over all pairs it holds if it does on `every` one that was run, or on `several` (two, unless the
            suite has one).
        tests: all must hold.
    """

    sentence: str
    origin: Literal["abstract", "change list", "earlier abstract", "inferred"]
    experiments: tuple[str, ...]
    pairs: tuple[str, ...] = ("*",)
    classes: Literal["measured", "names"] = "measured"
    choose: Choice | None = None
    over_pairs: Literal["every", "several"] = "every"
    tests: Annotated[tuple[Test, ...], Field(min_length=1)]


def load_claims(files: Iterable[Path]) -> dict[str, Claim]:
    """Read and validate claims files.

    Raises:
        SuiteError: with one line per fault.
    """
    claims: dict[str, Claim] = {}
    faults: list[str] = []
    for file in files:
        tree = read_yaml(file)
        if not isinstance(tree.value, dict):
            raise SuiteError(f"{tree.place}: expected a mapping of claims, name to sentence, origin and tests")
        for name, node in tree.value.items():
            if name in claims:
                raise SuiteError(f"{node.place}: {name}: another file has a claim of this name")
            try:
                claims[name] = Claim.model_validate(node.plain())
            except ValidationError as error:
                faults += explain(error, node, (name,), Claim)
    before: set[str] = set()
    claims = dict(sorted(claims.items(), key=lambda item: _natural(item[0])))
    for name, claim in claims.items():
        for test in claim.tests:
            if isinstance(test, OtherClaim) and test.claim not in before:
                faults.append(f"{name}: claim: '{test.claim}' is no claim that stands before it")
        before.add(name)
    if faults:
        raise SuiteError("\n".join(faults))
    return claims


def _natural(name: str) -> list[tuple[str, int]]:
    """C2 before C10."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D*)(\d*)", name)]
