import numpy as np
import pytest
from scipy import stats

from byol.evaluation.intervals import _t95, difference, over_draws, wilson


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
    assert over_draws(draws, 10**12) == pytest.approx(theirs, abs=1e-5), "with endless test images only the labels vary"
    assert over_draws([0.99, 1.0, 0.95], 10**12)[1] == 1


def test_the_interval_over_draws_holds_the_uncertainty_of_the_test_images_too():
    assert over_draws([0.75] * 5, 16) == pytest.approx(wilson(12, 16)), "draws that agree say nothing of other test images"
    rng, covered = np.random.default_rng(0), 0
    for _ in range(2000):  # an accuracy of 0.7 that labels shift by 0.02 and 200 test images blur
        images = rng.random(200)
        low, high = over_draws([(images < 0.7 + 0.02 * shift).mean() for shift in rng.standard_normal(5)], 200)
        covered += low <= 0.7 <= high
    assert 0.93 <= covered / 2000 <= 0.99


@pytest.mark.parametrize(
    ("first", "second", "published"),
    [((56, 70), (48, 80), (0.0524, 0.3339)), ((9, 10), (3, 10), (0.1705, 0.8090)), ((10, 10), (0, 10), (0.6075, 1.0))],
)
def test_the_interval_of_a_difference_is_newcombes(first, second, published):
    """His examples (a), (b) and (h), by the tenth method."""
    of = [(k / n, wilson(k, n)) for k, n in (first, second)]
    assert difference(*of[0], *of[1]) == pytest.approx(published, abs=5e-5)
    assert difference(*of[1], *of[0]) == pytest.approx((-published[1], -published[0]), abs=5e-5)
