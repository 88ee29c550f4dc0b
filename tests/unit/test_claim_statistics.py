"""Every statistic that verdicts rest on, against scipy, statsmodels or a published example."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from lthbench.analysis.claims.verdict import Effect
from lthbench.analysis.quantity import effect_text
from lthbench.analysis.stats import rank_correlation
from lthbench.analysis.stats.interval_censored import paired_intervals, possible
from lthbench.analysis.stats.mixed_models import ModelError, fit, generalised_least_squares, predicted_share
from lthbench.analysis.stats.paired import (
    detectable,
    exact_fraction,
    holm,
    paired,
    power_equivalence,
    power_one_sided,
    wilcoxon,
)

DIFFERENCES = [0.31, -0.12, 0.54, 0.22, 0.08, 0.41, -0.05]
values = st.lists(st.floats(-10, 10), min_size=3, max_size=8, unique=True)


@given(values, st.floats(-2, 2))
def test_the_one_sided_p_and_the_interval_are_those_of_the_t_test(differences: list[float], bound: float) -> None:
    found = paired(differences)
    if found is None:
        return
    for p, side in ((found.p_above(bound), "greater"), (found.p_below(bound), "less")):
        assert p == pytest.approx(stats.ttest_1samp(differences, bound, alternative=side).pvalue, abs=1e-12)
    # Each end errs once in twenty.
    interval = stats.ttest_1samp(differences, 0).confidence_interval(0.90)
    assert found.interval(0.05) == pytest.approx((interval.low, interval.high))


def test_equivalence_is_that_of_statsmodels() -> None:
    from statsmodels.stats.weightstats import DescrStatsW

    found = paired(DIFFERENCES)
    assert found is not None
    p = max(found.p_above(-0.5), found.p_below(0.5))
    assert p == pytest.approx(DescrStatsW(DIFFERENCES).ttost_mean(-0.5, 0.5)[0])


def test_wilcoxon_of_six_ascending_differences_is_one_in_64() -> None:
    assert wilcoxon([1, 2, 3, 4, 5, 6], 0, "greater") == 1 / 64
    assert wilcoxon([0.5, 0.5], 0.5, "greater") is None


@pytest.mark.parametrize(("gap", "n"), [(0.5, 5), (0.2, 20), (1.0, 3)])
def test_power_is_that_of_statsmodels(gap: float, n: int) -> None:
    from statsmodels.stats.power import TTestPower

    expected = TTestPower().power(gap / 0.3, n, 0.05, alternative="larger")
    assert power_one_sided(gap, 0.3, n, 0.05) == pytest.approx(expected, abs=1e-9)


def test_power_of_equivalence_is_what_simulation_gives() -> None:
    random = np.random.default_rng(1)
    draws = random.normal(0, 0.3, (20_000, 8))
    error = draws.std(axis=1, ddof=1) / math.sqrt(8)
    critical = stats.t.ppf(0.95, 7)
    passed = np.abs(draws.mean(axis=1)) + critical * error <= 0.35
    assert power_equivalence(0.35, 0.3, 8, 0.05) == pytest.approx(passed.mean(), abs=0.012)


def test_the_detectable_effect_is_where_power_reaches_80_percent() -> None:
    effect = detectable(lambda e: power_one_sided(e, 0.3, 5, 0.05), 0.1)
    assert effect is not None and power_one_sided(effect, 0.3, 5, 0.05) == pytest.approx(0.8, abs=1e-3)
    assert detectable(lambda e: 0.0, 1.0) is None


@pytest.mark.parametrize("p_values", [[], [0.01, 0.04, 0.03, 0.005], [0.5], [0.02, 0.02, 0.9, 0.6, 0.01, 0.2]])
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_holm_counts_members_without_a_p_as_one() -> None:
    assert holm([0.01, None, 0.02]) == pytest.approx([0.03, None, 0.04])


def test_exact_interval_of_a_fraction_is_the_published_one() -> None:
    # Newcombe 1998 (Statistics in Medicine 17), table I, method 5: 81 of 263.
    assert exact_fraction(81, 263, 0.05) == pytest.approx((0.2527, 0.3676), abs=5e-5)


def test_rank_correlation_over_five_configurations_has_its_exact_p() -> None:
    x = np.arange(5.0)
    for method in ("spearman", "kendall"):
        assert rank_correlation.correlation(x, x**2, method) == pytest.approx(1)  # type: ignore[arg-type]
        assert rank_correlation.permutation_p(x, x**2, method) == 1 / math.factorial(5)  # type: ignore[arg-type]
    y = np.array([2.0, 1, 3, 5, 4])
    expected = stats.kendalltau(x, y, alternative="greater").pvalue
    assert rank_correlation.permutation_p(x, y, "kendall") == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlations_with_ties_are_those_of_scipy(seed: int) -> None:
    x, y = np.random.default_rng(seed).integers(0, 4, (2, 9)).astype(float)
    assert rank_correlation.correlation(x, y, "spearman") == pytest.approx(stats.spearmanr(x, y).statistic)
    assert rank_correlation.correlation(x, y, "kendall") == pytest.approx(stats.kendalltau(x, y).statistic)
    assert math.isnan(rank_correlation.correlation(np.ones(4), y[:4], "kendall"))


def test_random_permutations_agree_with_the_exact_distribution() -> None:
    random = np.random.default_rng(3)
    x, y = random.normal(size=9), random.normal(size=9)
    expected = stats.kendalltau(x, y, alternative="greater", method="exact").pvalue
    assert rank_correlation.permutation_p(x, y, "kendall") == pytest.approx(expected, abs=0.02)


def test_page_is_the_published_example() -> None:
    # Page 1963 and scipy's documentation: three students, four seminar styles... rated 1 to 4; p = .0018 for these.
    table = [
        [3, 4, 3],
        [2, 2, 4],
        [3, 3, 5],
        [1, 3, 2],
        [2, 3, 2],
        [2, 4, 5],
        [1, 2, 4],
        [3, 4, 4],
        [2, 4, 5],
        [1, 3, 4],
    ]
    assert rank_correlation.page(table) == pytest.approx(0.0018191161948127822)


def test_kappa_and_auc_of_textbook_tables() -> None:
    # Cohen's kappa of 20 + 15 agreements and 5 + 10 disagreements is .4.
    a = [True] * 25 + [False] * 25
    b = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    assert rank_correlation.kappa(a, b) == pytest.approx(0.4)
    assert math.isnan(rank_correlation.kappa([True, True], [True, True]))
    assert rank_correlation.auc([1, 2, 3, 4], [False, False, True, True]) == 1
    assert rank_correlation.auc([1, 2, 2, 3], [False, True, False, True]) == 0.875
    assert math.isnan(rank_correlation.auc([1, 2], [True, True]))


GRID = np.array([0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1])


def onsets_on_the_grid(onsets: NDArray[np.float64]) -> list[tuple[float, float]]:
    """The last step of the grid before each onset, and the first that is not before it."""
    at = np.searchsorted(GRID, onsets)
    return list(zip(GRID[np.maximum(at - 1, 0)], GRID[at], strict=True))


@given(values)
def test_points_that_are_known_exactly_are_compared_by_the_paired_t_test(differences: list[float]) -> None:
    first, second = [(d, d) for d in differences], [(0.0, 0.0)] * len(differences)
    assert paired_intervals(first, second) == paired(differences)


def test_replicates_in_the_same_intervals_have_the_spread_of_what_the_intervals_leave_open() -> None:
    found = paired_intervals([(0.0, 0.0)] * 3, [(0.04, 0.08)] * 3)
    assert found is not None and found.mean == pytest.approx(-0.06)
    assert found.spread == pytest.approx(0.04 / math.sqrt(12))
    assert found.p_below(0) == pytest.approx(stats.t.cdf(-0.06 / (found.spread / math.sqrt(3)), 2))
    assert possible([(0.0, 0.0)] * 3, [(0.04, 0.08)] * 3) == pytest.approx((-0.08, -0.04))


@pytest.mark.parametrize("first", [[], [(0.0, 0.0)], [(0.02, 0.02)] * 4])
def test_points_without_any_spread_have_no_test(first: list[tuple[float, float]]) -> None:
    assert paired_intervals(first, [(0.01, 0.01)] * len(first)) is None


@pytest.mark.parametrize("n", [3, 5, 10])
def test_onsets_of_one_distribution_are_told_apart_at_most_once_in_twenty_times_and_those_of_two_mostly(n: int) -> None:
    random = np.random.default_rng(8)

    def rate(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
        pairs = [(onsets_on_the_grid(a), onsets_on_the_grid(b)) for a, b in zip(first, second, strict=True)]
        found = [paired_intervals(*pair) for pair in pairs]
        return float(np.mean([one is not None and one.p_below(0) <= 0.05 for one in found]))

    def around(centre: float) -> NDArray[np.float64]:
        return np.minimum(centre * np.exp(random.normal(0, 0.5, (400, n))), 1)

    highest = stats.binom.ppf(0.9995, 400, 0.05) / 400
    for draw in (
        lambda: around(0.03),
        lambda: np.exp(random.uniform(np.log(0.0012), np.log(0.6), (400, n))),
        lambda: random.choice([0.0, 0.12], (400, n)),
    ):
        assert rate(draw(), draw()) <= highest
    assert rate(around(0.01), around(0.08)) > {3: 0.45, 5: 0.9, 10: 0.99}[n]


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_a_mixed_model_of_balanced_rows_gives_the_paired_difference(seed: int) -> None:
    """The jackknife of a balanced design is the paired t test of the replicates' own differences."""
    random = np.random.default_rng(seed)
    n, levels = 5, 3
    outcome = random.normal(size=(n, 2, levels)) + random.normal(size=(n, 1, 1))
    rows = [(r, a, d) for r in range(n) for a in range(2) for d in range(levels)]
    columns = {"early": [a for _, a, _ in rows], "density": [d for *_, d in rows]}
    replicates = [r for r, *_ in rows]
    found = fit([outcome[row] for row in rows], replicates, replicates, columns, ["early", "factor density"], "early")
    differences = (outcome[:, 1] - outcome[:, 0]).mean(axis=1)
    assert found.estimate == pytest.approx(differences.mean(), abs=1e-6)
    assert found.pseudo_values == pytest.approx(differences, abs=1e-5)


def test_leaving_out_nothing_gives_the_mixed_model_of_statsmodels() -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    random = np.random.default_rng(4)
    groups = np.repeat(np.arange(6), [3, 5, 4, 6, 5, 4])
    design = np.column_stack([np.ones(len(groups)), random.normal(size=(len(groups), 2))])
    outcome = design @ [1, 2, -1] + random.normal(size=6)[groups] + random.normal(size=len(groups))
    result = MixedLM(outcome, design, groups).fit(reml=True)
    ratio = float(np.asarray(result.cov_re)[0, 0] / result.scale)
    assert generalised_least_squares(outcome, design, groups, ratio) == pytest.approx(result.fe_params, abs=1e-8)


def test_a_mixed_model_says_why_it_cannot_be_fitted() -> None:
    columns = {"early": [0, 1, 0, 1, 0, 1], "same": [0, 1, 0, 1, 0, 1]}
    with pytest.raises(ModelError, match="cannot identify"):
        fit([1, 2, 3, 4, 5, 7], [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], columns, ["early", "same"], "early")
    with pytest.raises(ModelError, match="needs three"):
        fit([1, 2, 3, 4], [0, 0, 1, 1], [0, 0, 1, 1], {"early": [0, 1, 0, 1]}, ["early"], "early")
    with pytest.raises(ModelError, match="no 'late'"):
        fit([1, 2, 3, 4, 5, 7], [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], columns, ["late"], "late")


@pytest.mark.parametrize("differences", [[], [0.4], [0.4, 0.4, 0.4], [0.1 + 0.2, 0.3]])
def test_differences_that_do_not_vary_have_no_test(differences: list[float]) -> None:
    assert paired(differences) is None


@pytest.mark.parametrize(
    ("effect", "text"),
    [
        (Effect(0.5, 0.21, 0.79, "pp"), "+0.50 (+0.21 to +0.79) pp"),
        (Effect(-0.0344, -0.0350, -0.0338), "-0.0344 (-0.0350 to -0.0338)"),
        (Effect(-282, -math.inf, -141, "iterations"), "-282 (-∞ to -141) iterations"),
        (Effect(1.5, unit="pp"), "+1.50 pp"),
        (Effect(1.5, 1.5, 1.5), "+1.50 (+1.50 to +1.50)"),
    ],
)
def test_an_effect_has_as_many_digits_as_its_interval_allows(effect: Effect, text: str) -> None:
    assert effect_text(effect) == text


def test_the_share_that_a_term_predicts_of_values_left_out_is_one_minus_the_press_ratio() -> None:
    random = np.random.default_rng(3)
    x, units = random.uniform(1, 5, 12), [f"recipe {i}" for i in range(12)]
    y = 2 - 0.4 * x + random.normal(0, 0.2, 12)
    design = np.stack([np.ones(12), x], 1)
    leverage = np.diag(design @ np.linalg.pinv(design))
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    press, total = np.square(residual / (1 - leverage)).sum(), np.square((y - y.mean()) / (1 - 1 / 12)).sum()
    assert predicted_share(y, units, {"moved": x}, "moved") == pytest.approx(1 - press / total)
    assert predicted_share(3 * x - 1, units, {"moved": x}, "moved") == pytest.approx(1)
    # Levels of one recipe are left out together: knowing the others of it would be no prediction.
    owners = np.repeat([f"recipe {i}" for i in range(4)], 3)
    noise = {"own": np.repeat(random.normal(size=4), 3)}
    assert predicted_share(np.repeat([1.0, 2.0, 0.0, 1.0], 3), owners, noise, "own") < 0.5
    with pytest.raises(ModelError, match="no 'speed'"):
        predicted_share(y, units, {"moved": x}, "speed")
    with pytest.raises(ModelError, match="too few"):
        predicted_share(y, units, {"moved": np.ones(12)}, "moved")


def test_two_replicates_have_a_test_of_one_degree_of_freedom_which_is_cauchys() -> None:
    expected = 0.5 - math.atan(3.0) / math.pi  # differences 1 and 2: mean 1.5, standard error .5
    for found in (paired([1.0, 2.0]), paired_intervals([(1.0, 1.0), (2.0, 2.0)], [(0.0, 0.0)] * 2)):
        assert found is not None and (found.mean, found.n) == (1.5, 2)
        assert found.p_above(0) == pytest.approx(expected) and found.p_below(0) == pytest.approx(1 - expected)


def test_differences_by_rounding_alone_are_recognised_by_their_size() -> None:
    third = [1e9 * (0.1 + 0.2), 1e9 * 0.3]
    assert third[0] != third[1] and paired(third) is None
    assert paired([1e-9, 2e-9]) is not None


def test_one_replicate_has_no_power_and_two_have_some() -> None:
    for power in (power_one_sided, power_equivalence):
        assert power(1.0, 0.1, 1, 0.05) == 0 < power(1.0, 0.1, 2, 0.05)
    assert power_equivalence(0.01, 1.0, 3, 0.05) == 0, "a chance is never below 0"


def test_the_detectable_effect_is_the_first_that_reaches_80_percent_wherever_the_search_begins() -> None:
    for start in (0.3, 1.0, 5.0):
        found = detectable(lambda size: 0.8 if size >= 1 else 0.79, start)
        assert found is not None and 1 <= found <= 1.001


def test_holm_takes_a_family_that_is_larger_than_the_p_values() -> None:
    assert holm([0.01, 0.02], family=5) == pytest.approx([0.05, 0.08])
    assert holm([0.5, None], family=3) == [1.0, None]


def test_wilcoxon_is_of_the_differences_from_a_number() -> None:
    assert wilcoxon([3, 4, 5, 6, 7, 8], 2, "greater") == 1 / 64
    assert wilcoxon([-3, -4, -5, -6, -7, -8], -2, "less") == 1 / 64


def test_seven_configurations_have_all_their_orders_and_eight_have_random_ones() -> None:
    assert rank_correlation.permutation_p(np.arange(7.0), np.arange(7.0), "spearman") == pytest.approx(
        1 / math.factorial(7)
    )
    drawn = (1 + rank_correlation.RESAMPLES) * rank_correlation.permutation_p(
        np.arange(8.0), np.arange(8.0), "spearman"
    )
    assert drawn == pytest.approx(round(drawn)) and 1 <= drawn <= 3, "of 4999 random orders, and the observed one"


def test_resampled_configurations_that_are_all_the_same_one_have_no_correlation() -> None:
    both = np.arange(2.0)
    found = rank_correlation.bootstrap(both, both, "spearman")
    assert set(found) == {1.0}
    assert abs(len(found) / rank_correlation.RESAMPLES - 1 / 2) < 4 * math.sqrt(1 / 4 / rank_correlation.RESAMPLES)


def test_the_mean_rank_correlation_is_of_the_rows_that_vary() -> None:
    assert rank_correlation.mean_rank_correlation([[1, 2, 3], [1, 3, 2], [4, 4, 4]]) == pytest.approx(0.75)
    assert math.isnan(rank_correlation.mean_rank_correlation([[1, 1, 1]] * 2))


def test_a_curve_without_both_answers_has_no_area() -> None:
    assert math.isnan(rank_correlation.auc([1, 2], [False, False]))


def test_terms_of_a_model_are_logarithms_levels_and_products() -> None:
    random = np.random.default_rng(5)
    a, b, units = random.uniform(1, 5, 12), random.uniform(1, 5, 12), list(range(12))
    columns = {"a": a, "b": b, "level": ["x", "y", "z"] * 4}
    of_level = {"x": 1.0, "y": 5.0, "z": 2.0}
    for term, outcome in (
        ("log a", 3 * np.log(a) - 1),
        ("a x b", 2 * a * b + 1),
        ("log a x b", np.log(a) * b),
        ("factor level", [of_level[level] for level in columns["level"]]),
    ):
        assert predicted_share(outcome, units, columns, term) == pytest.approx(1), term
    assert predicted_share(a, units, {"a": 1e-12 * a}, "a") == pytest.approx(1), "whatever the unit"
    with pytest.raises(ModelError, match="no logarithm"):
        predicted_share(a, units, {"a": a - a.min()}, "log a")
    with pytest.raises(ModelError, match="all values are equal"):
        predicted_share(np.ones(12), units, columns, "a")


def test_the_tested_coefficient_is_the_models_wherever_its_term_stands_and_constant_terms_are_passed_over() -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    random = np.random.default_rng(6)
    replicates = np.repeat(np.arange(5), 4)
    early, dose = np.tile([0.0, 0, 1, 1], 5), random.uniform(1, 2, 20)
    outcome = 2 * early + np.log(dose) + random.normal(size=5)[replicates] + random.normal(0, 0.3, 20)
    columns = {"early": early, "dose": dose, "density": np.full(20, 0.2)}
    result = MixedLM(outcome, np.column_stack([np.ones(20), np.log(dose), early]), replicates).fit(reml=True)
    for terms in (["log dose", "early"], ["early", "log density", "log dose"]):
        found = fit(outcome, replicates.tolist(), replicates.tolist(), columns, terms, "early")
        assert found.estimate == pytest.approx(result.fe_params[2], rel=1e-4)
        assert found.wald_p == pytest.approx(result.pvalues[2], rel=1e-2)
        # Jackknife: pseudo-values have the estimate for their mean, but for its small bias.
        assert np.mean(found.pseudo_values) == pytest.approx(found.estimate, abs=0.05)
    with pytest.raises(ModelError, match="the mixed model cannot be fitted"):
        fit(2 * early - 1, replicates.tolist(), replicates.tolist(), columns, ["early"], "early")
    with pytest.raises(ModelError, match="all values are equal"):
        fit(np.ones(20), replicates.tolist(), replicates.tolist(), columns, ["early"], "early")
