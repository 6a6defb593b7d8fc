from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from byol.studies import multiple_descent as md
from byol.studies.multiple_descent import Feature, Size

N, MIXTURE = 6, Feature(0.3, 5.0, 0.4)


def drawn(feature, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return feature.of((rng.standard_normal(shape), rng.random(shape)))


@pytest.mark.parametrize("d", [1, 3, 5, 6, 7, 15])
def test_the_loss_of_a_draw_is_that_of_numpys_pseudo_inverse(d):
    rng = np.random.default_rng(d)
    variances = rng.uniform(0.5, 3, d)
    x = rng.standard_normal((4, N, d)) * np.sqrt(variances)
    expected = [(variances[:, None] * np.linalg.pinv(one) ** 2).sum() for one in x]
    np.testing.assert_allclose(md.losses(x, variances), expected, rtol=1e-6)


@pytest.mark.parametrize("d", [3, 12])
def test_the_loss_is_the_test_error_of_a_regression_on_noise(d):
    rng = np.random.default_rng(1)
    features = [Feature(1.0)] * (d - 1) + [MIXTURE]
    x = np.stack([drawn(f, N, seed=i) for i, f in enumerate(features)], 1)
    labels = rng.standard_normal((N, 20_000))
    fits = np.linalg.lstsq(x, labels, rcond=None)[0]
    tests = np.stack([drawn(f, 20_000, seed=100 + i) for i, f in enumerate(features)], 1)
    errors = (tests * fits.T).sum(1) ** 2
    expected = md.losses(x[None], np.array([f.variance for f in features]))[0]
    assert errors.mean() == pytest.approx(expected, abs=4 * errors.std() / len(errors) ** 0.5)


@pytest.mark.parametrize(("n", "d"), [(20, 5), (20, 10), (10, 30), (7, 9)])
def test_the_closed_form_is_the_trace_of_the_mean_of_an_inverse_wishart(n, d):
    size, freedom = min(n, d), max(n, d)
    assert md.closed_form(n, d) == pytest.approx(np.trace(stats.invwishart(df=freedom, scale=np.eye(size)).mean()))


def test_at_the_threshold_the_mean_is_infinite():
    assert [md.closed_form(10, d) for d in (9, 10, 11)] == [np.inf] * 3


def test_the_limit_of_a_wide_gaussian_is_that_of_simulation():
    x = np.random.default_rng(0).standard_normal((20_000, 5, 13))
    wide = np.append(np.ones(12), 1e3)
    found = md.losses(x * wide, wide**2)
    assert md.limit(5, 12) == pytest.approx(found.mean(), abs=4 * found.std() / len(found) ** 0.5)


def test_a_feature_has_the_variance_that_it_says_and_mean_0():
    values = drawn(MIXTURE, 400_000)
    assert values.var() == pytest.approx(MIXTURE.variance, rel=0.01)
    assert values.mean() == pytest.approx(0, abs=0.02)
    assert (abs(values) > 2).mean() == pytest.approx(MIXTURE.share, abs=0.01)


def test_below_the_threshold_one_more_feature_never_lowers_the_loss():
    losses = md.curve([Feature(1.0), MIXTURE, Feature(5.0), MIXTURE, Feature(0.1)], N, np.random.default_rng(3), 500)
    assert (np.diff(losses, axis=0) >= -1e-9 * losses[:-1]).all()


def test_the_designed_curve_goes_as_its_word_on_fresh_draws():
    word = ["up", "down", "up", "up", "down"]
    features = md.design(word, 2.0, N, np.random.default_rng(5), 2000)
    found = np.median(md.curve(features, N, np.random.default_rng(6), 4000).reshape(len(features), 20, -1).mean(2), 1)[N + 6 :]
    assert ["up" if b > a else "down" for a, b in pairwise(found)] == word
    assert found[1] > 1.5 * found[0]


def test_peaks_are_counted_from_one_feature_on():
    assert md.peaks([1.0, 3.0, 2.0, 2.5, 4.0, 1.0, 0.5]) == [2, 5]
    assert md.peaks([1.0, 2.0, 3.0]) == []


def test_a_block_of_outliers_does_not_move_the_median_of_means():
    values = np.ones(1000)
    values[:10] = 1e9
    assert md.median_of_means(values) == 1.0


def test_a_tiny_run_judges_every_claim():
    told = []
    size = Size(n=6, draws=1000, design_draws=500, last=20, curves=((6,), (6, 16)), letters=4, closed=(5, 40), isotropic=(14, 20))
    outcome = md.run((0, 1), lambda *said: told.append(said), size)
    assert [f.claim for f in outcome.findings] == list(md.CLAIMS)
    assert all(f.held in (True, False) for f in outcome.findings)
    assert {len(row) for row in outcome.rows} == {len(outcome.columns)}
    assert [done for _, done, _ in told] == list(range(told[0][2]))
    assert [outcome.findings[i].held for i in (1, 2, 4, 6)] == [True] * 4
