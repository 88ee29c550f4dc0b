"""The statistical comparison: sound runs fail it as seldom as it says, others are found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from lthbench.analysis.golden.equivalence import Sample, _prior, agreement
from lthbench.analysis.stats.paired import holm

LEVEL = 0.05


def smallest_adjusted_p(samples: list[Sample]) -> float:
    return min(holm([verdict.p for verdict in agreement(samples, LEVEL / len(samples))]))


def suite(
    rng: np.random.Generator, *, quantities: int, replicates: int, environments: int, between_replicates: float
) -> list[Sample]:
    """Sound results: each quantity has a scale of its own, and a new environment is one more draw."""
    samples = []
    for _ in range(quantities):
        scale = float(np.exp(rng.normal(0, 1)))
        replicate = rng.normal(0, between_replicates * scale, (replicates, 1))
        values = replicate + rng.normal(0, scale, (replicates, environments + 1))
        samples.append(Sample(values[:, :-1], values[:, -1]))
    return samples


@pytest.mark.parametrize(
    ("quantities", "replicates", "environments", "between_replicates"),
    [(60, 3, 3, 1.0), (60, 2, 4, 30.0), (6, 2, 4, 3.0), (60, 3, 1, 0.0), (60, 3, 1, 3.0), (6, 3, 1, 0.0)],
)
def test_sound_suites_fail_no_more_often_than_the_level_says(
    quantities: int, replicates: int, environments: int, between_replicates: float
) -> None:
    rng = np.random.default_rng(0)
    design = {"quantities": quantities, "replicates": replicates, "environments": environments}
    simulated = 400
    failed = sum(
        smallest_adjusted_p(suite(rng, **design, between_replicates=between_replicates)) < LEVEL
        for _ in range(simulated)
    )
    # Within three standard errors of the level, were it met exactly; it may be kept by more.
    assert failed <= simulated * LEVEL + 3 * (simulated * LEVEL * (1 - LEVEL)) ** 0.5


def test_the_level_is_met_and_not_only_kept_where_the_test_is_exact() -> None:
    rng = np.random.default_rng(1)
    samples = [suite(rng, quantities=1, replicates=3, environments=3, between_replicates=0)[0] for _ in range(4000)]
    p = [agreement([sample], LEVEL)[0].p for sample in samples]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_one_value_of_another_draw_is_found_where_rounding_is_small() -> None:
    rng = np.random.default_rng(2)
    samples = suite(rng, quantities=60, replicates=2, environments=3, between_replicates=1000)
    wrong = samples[7]
    samples[7] = Sample(wrong.recorded, wrong.found + wrong.recorded.mean(1).std(ddof=1))
    verdicts = agreement(samples, LEVEL / len(samples))
    adjusted = holm([verdict.p for verdict in verdicts])
    assert [index for index, p in enumerate(adjusted) if p < LEVEL] == [7]
    tolerance = verdicts[7].tolerance
    assert tolerance is not None and tolerance < wrong.recorded.mean(1).std(ddof=1)


def test_a_difference_is_significant_from_its_tolerance_upwards() -> None:
    rng = np.random.default_rng(3)
    for sample in suite(rng, quantities=20, replicates=3, environments=2, between_replicates=1):
        tolerance = agreement([sample], LEVEL)[0].tolerance
        assert tolerance is not None
        for factor, significant in ((0.999, False), (1.001, True)):
            found = sample.recorded.mean(1) + factor * tolerance
            assert (agreement([Sample(sample.recorded, found)], LEVEL)[0].p < LEVEL) == significant


def test_quantities_that_never_vary_must_be_equal() -> None:
    constant = np.full((2, 3), 0.25)
    assert agreement([Sample(constant, np.full(2, 0.25))], LEVEL)[0].p == 1
    assert agreement([Sample(constant, np.array([0.25, 0.26]))], LEVEL)[0].p == 0


def test_an_image_more_or_less_is_no_difference_of_accuracies_that_never_varied() -> None:
    accuracies = np.full((3, 3), 0.5)
    verdict = agreement([Sample(accuracies, np.array([0.5, 0.5 + 1 / 200, 0.5]), 1 / 200)], LEVEL / 100)[0]
    assert verdict.p > LEVEL


def test_one_value_alone_has_no_tolerance() -> None:
    assert agreement([Sample(np.zeros((1, 1)), np.ones(1))], LEVEL)[0].tolerance is None


def test_without_replicates_in_other_environments_means_are_compared_by_the_spread_between_replicates() -> None:
    recorded, found = np.array([[1.0], [2.0], [4.0]]), np.array([2.0, 4.0, 4.0])
    (verdict,) = agreement([Sample(recorded, found)], LEVEL)
    scale = 2 * recorded.var(ddof=1) / 3
    assert verdict.p == pytest.approx(stats.f.sf(1.0 / scale, 1, 2))  # the means differ by 1
    assert verdict.tolerance == pytest.approx((stats.f.isf(LEVEL, 1, 2) * scale) ** 0.5)


def test_replicates_in_several_environments_are_compared_one_by_one() -> None:
    recorded, found = np.array([[1.0, 3.0, 2.0], [5.0, 4.0, 6.0]]), np.array([3.0, 3.0])
    (verdict,) = agreement([Sample(recorded, found)], LEVEL)
    scale = (1 + 1 / 3) * (2 + 2) / (2 * 2)
    assert verdict.p == pytest.approx(stats.f.sf((1**2 + 2**2) / 2 / scale, 2, 4))


def test_no_spread_is_taken_for_smaller_than_a_twentieth_of_what_seeds_commonly_differ_by() -> None:
    """The middle one of three quantities says what is common; one that varies more has its own."""
    off = np.array([0.1, 0.1])
    for seeds, common in ((0.01, 1.0), (1.0, 1.0), (10.0, 10.0)):
        own = Sample(np.array([[0.0, 0.0], [seeds, seeds]]) * 2**0.5, np.array([0.0, seeds]) * 2**0.5 + off)
        low, high = (Sample(np.array([[0.0, 0.0], [s, s]]) * 2**0.5, np.array([0.0, s]) * 2**0.5) for s in (0.1, 1.0))
        others = [low, high] if seeds > 0.1 else [high, high]
        scale = 1.5 * (0.05 * common) ** 2
        p = agreement([own, *others], LEVEL)[0].p
        assert p == pytest.approx(stats.f.sf(0.1**2 / scale, 2, 2)), seeds


@pytest.mark.parametrize("degrees", [4.0, 20.0])
def test_the_prior_is_that_from_which_spreads_were_drawn(degrees: float) -> None:
    """Smyth 2004: a spread of d degrees of freedom is s0^2 times an F of d and d0 of them."""
    quantiles = (np.arange(2000) + 0.5) / 2000
    found = _prior((3.0 * stats.f.ppf(quantiles, 5, degrees)).tolist(), [5] * 2000)
    assert found == pytest.approx((degrees, 3.0), rel=0.05)


def test_spreads_that_differ_by_no_more_than_chance_have_one_prior_that_outweighs_them() -> None:
    degrees, variance = _prior([2.0] * 10, [4] * 10)
    assert degrees >= 1e6
    assert variance == pytest.approx(2.0 * np.exp(np.log(2) - special.digamma(2)))
    assert _prior([2.0] * 9, [4] * 9) == _prior([2.0] * 9 + [0.0] * 9, [4] * 18) == (0, 0), "too few spreads"


def test_two_replicates_of_one_environment_are_enough_for_a_test() -> None:
    (verdict,) = agreement([Sample(np.array([[1.0], [2.0]]), np.array([3.0, 4.0]))], LEVEL)
    assert verdict.p == pytest.approx(stats.f.sf(2**2 / (2 * 0.5 / 2), 1, 1))


def test_spreads_are_moderated_by_those_of_all_quantities() -> None:
    """With d0 degrees of freedom of the prior s0^2 the variance is (d v + d0 s0^2) / (d + d0) (Smyth 2004)."""
    rng = np.random.default_rng(4)
    samples = [
        Sample(scale * rng.normal(size=(2, 3)) + 50 * rng.normal(size=(2, 1)) * 1e-3, scale * rng.normal(size=2))
        for scale in np.exp(rng.normal(0, 1.5, 15))
    ]
    variances = [float(sample.recorded.var(axis=1, ddof=1).mean()) for sample in samples]
    prior_degrees, prior = _prior(variances, [4] * 15)
    assert 0 < prior_degrees < 100
    for sample, variance, verdict in zip(samples, variances, agreement(samples, LEVEL), strict=True):
        moderated = (4 * variance + prior_degrees * prior) / (4 + prior_degrees)
        ratio = float(np.mean((sample.found - sample.recorded.mean(1)) ** 2)) / (4 / 3 * moderated)
        assert verdict.p == pytest.approx(stats.f.sf(ratio, 2, 4 + prior_degrees))


def test_the_spread_of_a_single_replicate_is_at_least_the_common_one() -> None:
    alone = Sample(np.array([[5.0, 5.0]]), np.array([5.1]))
    other = Sample(np.array([[0.0, 0.0], [2.0, 2.0]]), np.array([0.0, 2.0]))
    p = agreement([alone, other], LEVEL)[0].p
    assert p == pytest.approx(stats.f.sf(0.1**2 / (1.5 * 0.05**2 * (0 + 2) / 2), 1, 1))
