"""How often the rule of verdicts gives each of them, over true effects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lthbench.analysis.claims.error_rates import rates, table

README = Path(__file__).parents[2] / "lthbench/analysis/README.md"
# Sobol's quantiles leave an error of a tenth of this.
ROOM = 0.005


@pytest.mark.parametrize(
    "test",
    [{}, {"expected": "equivalent"}, {"than": -1.0, "margin": 0.0}],
    ids=["greater", "equivalent", "not inferior"],
)
@pytest.mark.parametrize("effect", [-1, -0.5, -0.2, 0, 0.2, 0.5, 1])
def test_under_no_truth_are_support_and_contradiction_both_likely(test: dict[str, Any], effect: float) -> None:
    for n in (3, 10):
        found = rates(n, effect, **test)
        assert min(found.get("supported", 0), found.get("contradicted", 0)) <= 0.05 + ROOM, (n, found)


def test_an_effect_that_matters_is_seldom_called_negligible() -> None:
    for n in (3, 10):
        for effect in (-1, 1):
            assert rates(n, effect).get("negligible", 0) <= 0.05 + ROOM


def test_the_table_of_the_readme_is_the_rule_of_the_program() -> None:
    assert set(table(replicates=(5,))) <= set(README.read_text().splitlines())
