import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byol.reporting.scales import Scale, linear_ticks, spread_of, thinned, tick_label

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(numbers, st.floats(1e-4, 1e6), st.integers(2, 8))
def test_ticks_are_round_numbers_inside_the_axis(low, length, count):
    ticks = linear_ticks(low, low + length, count)
    assert 1 <= len(ticks) <= 2 * count + 2
    assert all(low - 1e-6 * length <= t <= low + length * (1 + 1e-6) for t in ticks)
    for step in np.diff(ticks):
        first = float(f"{step:.6e}".split("e")[0])
        assert min(abs(first - m) for m in (1, 2, 2.5, 5, 10)) < 1e-3


@given(st.lists(numbers, min_size=1, max_size=20), st.booleans())
def test_every_value_lies_on_its_axis(values, zero):
    domain, log = spread_of(values, zero=zero)
    assert domain[0] < domain[1]
    scale = Scale(domain, (100.0, 0.0), log)
    assert all(-1e-6 <= scale(v) <= 100 + 1e-6 for v in values)
    assert not zero or domain[0] <= 0 <= domain[1]


def test_values_over_more_than_two_powers_of_ten_get_a_logarithmic_axis():
    (low, high), log = spread_of([0.001, 0.2, 30], zero=False)
    assert log
    scale = Scale((low, high), (0.0, 1.0), log)
    assert scale(0.1) - scale(0.01) == pytest.approx(scale(1) - scale(0.1))
    assert all(math.log10(t).is_integer() or t / 10 ** math.floor(math.log10(t)) in (2, 5) for t in scale.ticks())
    assert scale.ticks()


def test_a_constant_curve_has_an_axis_too():
    assert spread_of([0.0, 0.0], zero=True)[0] == (0.0, pytest.approx(0.525))
    assert Scale(spread_of([3.0], zero=False)[0], (0.0, 1.0))(3.0) == pytest.approx(0.5)


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 150, 777, 5000])
def test_a_thinned_line_keeps_its_ends_and_its_extremes(n):
    values = np.random.default_rng(n).normal(size=n).tolist()
    kept = thinned(values, 100)
    assert kept == sorted(set(kept))
    assert len(kept) <= 102
    assert {0, len(values) - 1} <= set(kept)
    assert max(values[i] for i in kept) == max(values)
    assert min(values[i] for i in kept) == min(values)
    assert n > 100 or kept == list(range(n))


def test_a_short_line_is_kept_whole():
    assert thinned([1.0] * 600) == list(range(600))


@pytest.mark.parametrize(
    ("value", "label"), [(0, "0"), (0.25, "0.25"), (1500, "1,500"), (12_000, "12k"), (3e6, "3M"), (1e-5, "1e-5"), (-2.5, "-2.5")]
)
def test_ticks_are_written_short(value, label):
    assert tick_label(value) == label
