import importlib

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from byol.evaluation import Knn, knn
from byol.evaluation.accuracy import hits
from byol.evaluation.knn import votes


def clusters(n, dim, classes, seed):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    return np.random.default_rng(9).normal(size=(classes, dim))[y] + 1.5 * rng.normal(size=(n, dim)), y


TRAIN_X, TRAIN_Y = clusters(150, 6, 7, seed=0)
TEST_X, TEST_Y = clusters(90, 6, 7, seed=1)
ARRAYS = [torch.from_numpy(a) for a in (TRAIN_X, TRAIN_Y, TEST_X)]


@pytest.mark.parametrize("temperature", [0.02, 0.1, 1.0, None])
@pytest.mark.parametrize("k", [1, 5, 20, 150])
def test_votes_and_predictions_equal_scikit_learns(k, temperature):
    weights = "uniform" if temperature is None else lambda distance: np.exp((1 - distance) / temperature)
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights).fit(TRAIN_X, TRAIN_Y)
    ours = votes(*ARRAYS, classes=7, k=k, temperature=temperature)
    np.testing.assert_allclose(ours / ours.sum(1, keepdim=True), theirs.predict_proba(TEST_X), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ours.argmax(1), theirs.predict(TEST_X))
    accuracy = knn(*ARRAYS, torch.from_numpy(TEST_Y), k=k, temperature=temperature)
    assert accuracy == theirs.score(TEST_X, TEST_Y)


def test_a_small_temperature_does_not_overflow():
    near = votes(*ARRAYS, classes=7, k=20, temperature=1e-4)
    assert bool(near.isfinite().all())
    assert torch.equal(near.argmax(1), votes(*ARRAYS, classes=7, k=1, temperature=None).argmax(1))


def test_of_equally_near_samples_the_first_ones_vote():
    same = torch.ones(40, 3)
    labels = torch.arange(40) // 4
    counts = votes(same, labels, torch.ones(5, 3), classes=10, k=6, temperature=None)
    assert counts.tolist() == [[4, 2, 0, 0, 0, 0, 0, 0, 0, 0]] * 5


@pytest.mark.parametrize("k", [1, 7, 31, 400, 1003])
@pytest.mark.parametrize(("chunk", "neighbours"), [(1 << 25, 1 << 20), (1003 * 8, 1 << 20), (1003 * 8, 150)])
def test_of_many_ties_the_first_ones_vote_whatever_way_they_are_found(monkeypatch, k, chunk, neighbours):
    # Sixteen entries of 1 or -1: unit vectors and similarities are exact, and hundreds of them are equal.
    module = importlib.import_module("byol.evaluation.knn")
    monkeypatch.setattr(module, "_CHUNK", chunk)
    monkeypatch.setattr(module, "_NEIGHBOURS", neighbours)
    rng = np.random.default_rng(0)
    train, test = (rng.choice([-1.0, 1.0], (n, 16)).astype(np.float32) for n in (1003, 50))
    y = rng.integers(0, 5, 1003)
    order = np.argsort(-(test @ train.T), axis=1, kind="stable")[:, :k]
    counts = votes(torch.from_numpy(train), torch.from_numpy(y), torch.from_numpy(test), classes=5, k=k, temperature=None)
    np.testing.assert_array_equal(counts, (y[order][..., None] == np.arange(5)).sum(1))


def test_the_length_of_a_feature_does_not_matter():
    longer = TRAIN_X * np.random.default_rng(0).uniform(0.1, 10, (150, 1))
    moved = votes(torch.from_numpy(longer), *ARRAYS[1:], classes=7, k=9, temperature=0.1)
    torch.testing.assert_close(moved, votes(*ARRAYS, classes=7, k=9, temperature=0.1))


def test_chunks_of_test_samples_change_nothing(monkeypatch):
    whole = votes(*ARRAYS, classes=7, k=9, temperature=0.1)
    monkeypatch.setattr(importlib.import_module("byol.evaluation.knn"), "_CHUNK", 150 * 7)
    torch.testing.assert_close(votes(*ARRAYS, classes=7, k=9, temperature=0.1), whole, rtol=0, atol=1e-12)


def test_more_neighbours_than_samples_is_one_sentence():
    with pytest.raises(ValueError, match=r"k=151 neighbours .* 150 training samples; give a smaller k"):
        votes(*ARRAYS, classes=7, k=151, temperature=0.1)


@pytest.mark.parametrize("wrong", [{"k": 0}, {"temperature": 0.0}, {"temperature": -1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="give"):
        Knn(**wrong)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_hits_equal_scikit_learns_top_k_accuracy(k):
    scores = np.random.default_rng(0).normal(size=(90, 7))
    theirs = top_k_accuracy_score(TEST_Y, scores, k=k, labels=np.arange(7))
    assert hits(torch.from_numpy(scores), torch.from_numpy(TEST_Y), k).double().mean() == theirs


def test_a_tie_or_a_diverged_classifier_is_no_free_hit():
    labels = torch.arange(7)
    assert hits(torch.zeros(7, 7), labels, 1).tolist() == [True] + 6 * [False]
    assert hits(torch.zeros(7, 7), labels, 5).sum() == 5
    assert hits(torch.full((7, 7), torch.nan), labels, 5).sum() == 0
