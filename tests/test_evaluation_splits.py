import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byol.evaluation import splits

LABELS = np.repeat(np.arange(4), (10, 25, 40, 3))[np.random.default_rng(0).permutation(78)]


@pytest.mark.parametrize("split", [splits.stratified, splits.held_out])
def test_both_parts_hold_their_share_of_every_class_and_every_sample_once(split):
    train, test = split(LABELS, 0.2, seed=3)
    assert sorted([*train, *test]) == list(range(78))
    np.testing.assert_array_equal(np.bincount(LABELS[test]), [2, 5, 8, 1])


def test_a_class_of_one_sample_trains_and_is_not_tested():
    train, test = splits.stratified(np.array([0, 0, 0, 1]), 0.2, seed=0)
    assert 3 in train
    assert len(test) == 1


def test_the_split_depends_on_the_seed_and_on_nothing_else():
    once, again, other = (splits.stratified(LABELS, 0.2, seed=s)[1] for s in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert set(once) != set(other)
    assert set(once) != set(splits.held_out(LABELS, 0.2, seed=1)[1])


def test_a_split_is_as_good_as_random():
    # Every sample of a class should test equally often: 400 seeds, 20 % each, 5 standard deviations.
    labels = np.repeat([0, 1], 20)
    often = sum(np.bincount(splits.stratified(labels, 0.2, seed=s)[1], minlength=40) for s in range(400))
    assert np.abs(often - 80).max() < 5 * np.sqrt(400 * 0.2 * 0.8)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    fraction=st.floats(0.001, 1),
    seed=st.integers(0, 99),
    draw=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_a_draw_takes_every_class_and_as_many_labels_as_were_asked_for(sizes, fraction, seed, draw):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    ids = splits.draw_labels(labels, fraction, seed=seed, draw=draw)
    counts = np.bincount(labels[ids], minlength=len(sizes))
    assert len(set(ids)) == len(ids)
    assert (counts >= 1).all()
    assert (counts <= sizes).all()
    # One of each class comes on top where a class would have got none.
    assert max(len(sizes), round(fraction * sum(sizes))) <= len(ids) <= round(fraction * sum(sizes)) + len(sizes)
    assert (np.abs(counts - np.maximum(1, np.array(sizes) * fraction)) <= 1).all()


def test_draws_differ_and_a_smaller_share_is_part_of_the_larger_one_of_the_same_draw():
    small, large = ([splits.draw_labels(LABELS, f, seed=0, draw=d) for d in range(3)] for f in (0.1, 0.5))
    assert len({tuple(ids) for ids in small}) == 3
    assert all(set(a) < set(b) for a, b in zip(small, large, strict=True))
    np.testing.assert_array_equal(splits.draw_labels(LABELS, 1.0, seed=0, draw=0), np.arange(78))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan")])
def test_an_impossible_share_is_one_sentence(fraction):
    with pytest.raises(ValueError, match=r"label fraction of .* above 0 and up to 1"):
        splits.draw_labels(LABELS, fraction, seed=0, draw=0)


def test_folds_hold_every_sample_out_once_and_leave_every_class_to_train():
    labels = np.repeat([0, 1, 2], (7, 2, 1))
    fold = splits.folds(labels, 5, seed=0)
    assert fold[9] == -1, "the only sample of a class is never held out"
    assert all((fold == f).any() for f in range(5))
    for f in range(5):
        assert set(labels[fold != f]) == {0, 1, 2}
    assert np.bincount(fold[:9]).max() - np.bincount(fold[:9]).min() <= 1
