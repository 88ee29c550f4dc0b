import numpy as np
import pytest
from scipy import stats

from lthbench.analysis.quantity import interval_text
from lthbench.analysis.stats.summary import Interval, mean_interval


def test_the_interval_is_students_t() -> None:
    values = [86.1, 87.4, 86.9, 88.0]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = mean_interval(values)
    assert found.half_width is not None
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))


def test_one_value_has_no_interval() -> None:
    assert mean_interval([0.5]).half_width is None


def test_the_interval_covers_the_mean_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        found = mean_interval(rng.normal(1.0, 2.0, size=4).tolist())
        assert found.half_width is not None
        covered += abs(found.mean - 1.0) <= found.half_width
    assert 0.93 < covered / 2000 < 0.97


def test_a_mean_that_rounds_to_zero_has_no_sign() -> None:
    assert interval_text("onset_above", Interval(-0.33, 1.43, 3)) == "0 ± 1 it"
    assert interval_text("test_accuracy", Interval(-0.00002, None, 1)) == "0.00 %"
