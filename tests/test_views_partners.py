import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from byol.views import Partners

COLUMNS = st.lists(st.tuples(st.integers(-1, 3), st.integers(-20, 20)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(COLUMNS, st.integers(1, 50), st.integers(0, 50))
def test_partners_are_those_that_brute_force_finds_and_each_is_as_likely(rows, low, more):
    groups, times = (np.array(c, np.int64) for c in zip(*rows, strict=True))
    high = 0 if more == 0 else low + more - 1
    partners = Partners.of(groups, times, low, high)
    for i, (group, time) in enumerate(rows):
        wanted = [j for j, (g, t) in enumerate(rows) if g == group >= 0 and abs(t - time) >= low and (not high or abs(t - time) <= high)]
        assert partners.has[i] == bool(wanted)
        n = max(1, len(wanted))
        found = partners.draw(torch.full((n,), i), (torch.arange(n) + 0.5) / n)
        assert sorted(found.tolist()) == (wanted or [i])


def test_the_greatest_draw_stays_within_the_partners():
    partners = Partners.of(np.zeros(5, np.int64), np.arange(5), 1)
    assert partners.draw(torch.arange(5), torch.full((5,), 1 - 2.0**-24)).tolist() == [4, 4, 4, 4, 3]


@pytest.mark.parametrize(("low", "high"), [(0, 4), (3, 2), (-1, 0)])
def test_bounds_that_are_none_are_refused_in_a_sentence(low, high):
    with pytest.raises(ValueError, match="apart are not possible"):
        Partners.of(np.zeros(3, np.int64), np.arange(3), low, high)
