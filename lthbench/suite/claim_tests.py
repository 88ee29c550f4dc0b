"""The kinds of test in claims: what each compares, and what it expects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import core_schema

from lthbench.names import unknown

Levels = str | Annotated[tuple[str, ...], Field(min_length=1)]
Expected = Literal["greater", "less", "equivalent"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Selection(Frozen):
    """Some measurements of one pair; a replicate's value is their mean.

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

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        short = {"additionalProperties": {"type": "string"}, "minProperties": 1, "maxProperties": 1, "type": "object"}
        full = handler(core)
        return {"anyOf": [full, short], "description": full.get("description", "")}


@dataclass(frozen=True)
class _OneOrMore:
    """A field's value may be one or several."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return core_schema.no_info_before_validator_function(
            lambda value: (value,) if isinstance(value, dict) else value, handler(source)
        )

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        several = handler(core)
        return {"anyOf": [several["items"], several]}


Selections = Annotated[tuple[Selection, ...], _OneOrMore()]


@cache
def variant_pattern(variant: str) -> re.Pattern[str]:
    """The variants that a selection's `variant` matches, as a regular expression with a group for each `{NAME}`."""
    parts = re.split(r"(\*|\{\w+\})", variant)
    out = "".join(
        ".*" if part == "*" else f"(?P<{part[1:-1]}>.+?)" if part.startswith("{") else re.escape(part) for part in parts
    )
    return re.compile(out)


class _Test(Frozen):
    """What all tests have.

    Attributes:
        test: which of the tests this is.
        what: the comparison in words.
        counts: whether the claim rests on it; otherwise it is only reported.
        metric: the number that selections read unless they name their own.
        expected: the direction of the effect that supports the claim.
        levels: a named set of the pair's `claim_levels`, or several.
    """

    what: str
    counts: bool = True
    metric: str = "test_accuracy"
    levels: Levels = "range"


class Contrast(_Test):
    """The mean of some selections minus that of others, averaged over levels within a replicate, against a number.

    Student's paired interval decides: supported beyond `than`, contradicted on its other side, negligible within
    `margin` of it on both sides; for `equivalent`, supported within `margin` of 0 and contradicted outside.

    Attributes:
        plus, minus: the selections whose values are added, and those whose values are subtracted.
        subject, reference: the two sides as plurals, for the sentence of what was found, as `gains of tickets by the
            pull`; needed where several selections make a side.
        times: what the difference is multiplied by: 2 makes a difference of differences of four selections.
        than: in the effect's unit, percentage points for accuracies.
        margin: the smallest effect beyond `than` that would matter.
        over_levels: with `every` it must hold at each level, not only on average.
    """

    test: Literal["contrast"]
    subject: str | None = None
    reference: str | None = None
    plus: Selections
    minus: Selections = ()
    times: float = 1
    expected: Expected = "greater"
    than: float = 0
    margin: Annotated[float, Field(ge=0)] = 0
    over_levels: Literal["mean", "every"] = "mean"

    @model_validator(mode="after")
    def _both_sides_are_named(self) -> Contrast:
        if (self.subject is None) != (self.reference is None):
            raise ValueError("subject and reference are given together, or neither")
        return self

    @model_validator(mode="after")
    def _margin_for_equivalence(self) -> Contrast:
        if self.expected == "equivalent" and not self.margin:
            raise ValueError("expected: equivalent needs a margin above 0")
        return self


class Onset(_Test):
    """Stability begins earlier in training, as a share of it, in one class of arms than in another.

    An onset is known to lie between two measured points. The mean of the replicates' differences is tested
    (lthbench/analysis/stats/interval_censored.py).

    Attributes:
        earlier, later: selections of barriers.
        threshold: the barrier under which a network is stable, as a fraction.
    """

    test: Literal["onset"]
    earlier: Selection
    later: Selection
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Waiting(_Test):
    """The share of training until something happens, the metric, is shorter in one selection than in another.

    Attributes:
        shorter, longer: the selections that are compared.
        censored: the metric that says until when it had not happened; the end of training where it never did.
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


class Axes(Frozen):
    """Two numbers of each configuration: of each arm, and of what each `{NAME}` in the variants stands for.

    Attributes:
        x, y: the two numbers.
        minus: subtracted from x.
    """

    x: Selection
    y: Selection
    minus: Selection | None = None


class Rank(_Test):
    """A rank correlation over configurations (means over replicates), with a permutation test over them.

    The metric `onset` of barriers is the middle of the interval that the onset lies in, as a share of training.
    Configurations without such a number (an AdamW recipe has no noise scale) are left out, which is reported.

    Attributes:
        of: where the configurations are read.
        method: the rank correlation.
        than: the correlation beyond which the claim is supported.
        minimum: how many configurations a verdict needs.
    """

    test: Literal["rank"]
    of: tuple[Axes, ...]
    method: Literal["spearman", "kendall"]
    expected: Literal["greater", "less"] = "greater"
    than: float = 0
    minimum: Annotated[int, Field(ge=4)] = 4


class Rows(Frozen):
    """Rows of a mixed model: a value for each arm, replicate, level, and each `{NAME}` in the variant.

    Attributes:
        of: the selection of the rows' values.
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
        compared: terms for which it is reported how well each alone predicts what is left out.
    """

    test: Literal["mixed"]
    rows: Annotated[dict[str, Rows], Field(min_length=1)]
    fixed: tuple[str, ...]
    tested: str
    over: Literal["replicates", "configurations"] = "replicates"
    expected: Literal["greater", "less"] = "greater"
    logit: bool = False
    compared: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _tested_is_fixed(self) -> Mixed:
        if self.tested not in self.fixed:
            raise ValueError(f"tested: '{self.tested}' is none of fixed ({', '.join(self.fixed)})")
        return self

    @model_validator(mode="after")
    def _terms_are_columns(self) -> Mixed:
        columns = {"arm", "level", "density"}
        for name, rows in self.rows.items():
            columns |= {name, *rows.covariates, *re.findall(r"\{(\w+)\}", rows.of.variant)}
        for term in (*self.fixed, *self.compared):
            for part in term.split(" x "):
                if (column := part.rpartition(" ")[2]) not in columns:
                    raise ValueError(unknown("column of the rows", column, sorted(columns)))
        return self


class Agreement(_Test):
    """Agreement of a barrier under the threshold with matching, over the arms and levels of a replicate (Cohen's
    kappa).

    Attributes:
        barrier: the selection of barriers.
        accurate, reference: the networks that match where their accuracy falls short by at most `within`.
        within: in percentage points.
        threshold: the barrier under which a network is stable, as a fraction.
    """

    test: Literal["agreement"]
    barrier: Selection
    accurate: Selection
    reference: Selection
    within: float
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.02


class Cost(_Test):
    """What some experiments cost, in trainings of the dense network, for one arm and replicate; a count, no test.

    Attributes:
        experiments: the experiments, by name.
        than: how many trainings of the dense network they cost at least.
    """

    test: Literal["cost"]
    experiments: tuple[str, ...]
    than: float


class OtherClaim(_Test):
    """Another claim holds on this pair.

    Attributes:
        claim: its name.
    """

    test: Literal["claim"]
    claim: str


Test = Annotated[
    Contrast | Onset | Waiting | Trend | Rank | Mixed | Agreement | Cost | OtherClaim, Field(discriminator="test")
]
