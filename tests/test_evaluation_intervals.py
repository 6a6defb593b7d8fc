import pytest
from scipy import stats

from byol.evaluation.intervals import _t95, over_draws, wilson


@pytest.mark.parametrize(("correct", "total"), [(0, 20), (3, 20), (20, 20), (613, 864)])
def test_wilson_equals_scipys(correct, total):
    theirs = stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson(correct, total) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 9, 29, 200])
def test_students_t_equals_scipys(df):
    assert _t95(df) == pytest.approx(stats.t.ppf(0.975, df), abs=1e-3)


def test_the_interval_over_draws_is_that_of_the_mean():
    draws = [0.61, 0.64, 0.66, 0.60, 0.63]
    theirs = stats.t.interval(0.95, 4, loc=0.628, scale=stats.sem(draws))
    assert over_draws(draws) == pytest.approx(theirs, abs=1e-5)
    assert over_draws([0.99, 1.0, 0.95])[1] == 1
