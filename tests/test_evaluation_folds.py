"""Sets with folds: each is tested by what learnt from the others, and the score is the mean."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from test_evaluation_evaluate import encoder, source

from byol.data.source import Official
from byol.evaluation import Evaluation, evaluate, features
from byol.evaluation.intervals import wilson
from byol.evaluation.probe import Prediction
from byol.reporting.scores import _result
from byol.reporting.worth import _cell

FOLD = np.arange(60) // 3 % 4  # four folds of 15, each with 5 of every class


def folded(fold=FOLD, **changes):
    """Lines in noise that is hard to see through, of the given folds."""
    found = source(len(fold), **{"noise": 120, **changes})
    return replace(found, official=Official("top-1", np.zeros(len(fold), bool), folds=fold))


@dataclass
class Spy:
    """A protocol that keeps what it was given and says class 0."""

    tasks: list = field(default_factory=list)
    name: str = "spy"

    def describe(self):
        return "spy"

    def settings(self):
        return {}

    def predict(self, task):
        self.tasks.append(task)
        return Prediction(torch.eye(task.classes)[0].expand(len(task.test_x), -1))


def test_the_score_is_the_mean_over_folds_of_what_scikit_learn_says():
    data, network = folded(), encoder()
    knn, linear = evaluate([("run", network)], data, protocols=["knn:k=3,temperature=none", "linear:grid=1"])
    x, y = features(network, data).x.astype(np.float64), data.labels
    expected = {"knn": [], "linear": []}
    for f in range(4):
        out = f == FOLD
        scaler = StandardScaler().fit(x[~out])
        nearest = KNeighborsClassifier(3, metric="cosine", algorithm="brute").fit(x[~out], y[~out])
        logistic = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(scaler.transform(x[~out]), y[~out])
        expected["knn"].append(nearest.score(x[out], y[out]))
        expected["linear"].append(logistic.score(scaler.transform(x[out]), y[out]))
    for found, name in ((knn, "knn"), (linear, "linear")):
        (score,) = found.scores
        assert score.folds == pytest.approx(expected[name], abs=1e-9), name
        assert score.top1 == pytest.approx(np.mean(expected[name]))
        assert score.fold_std == pytest.approx(np.std(expected[name], ddof=1))
        assert score.interval == wilson(round(60 * score.top1), 60)
        assert (found.train, found.test, score.n_labels) == (45, 60, 45)
        assert found.split == "4 folds, each left out in turn"
    assert 0.4 < knn.scores[0].top1 < 1  # hard enough for a leak to show


def test_no_sample_of_a_fold_is_there_when_its_classifier_learns_and_each_is_tested_once():
    spy, data = Spy(), folded()
    (found,) = evaluate([("run", encoder())], data, protocols=[spy], labels=(0.2, 1.0), draws=2)
    assert len(spy.tasks) == 3 * 4
    fold_of = dict(zip(data.names, FOLD, strict=True))
    for i, task in enumerate(spy.tasks):
        assert {fold_of[n] for n in task.test.names} == {i % 4}
        assert i % 4 not in {fold_of[n] for n in task.train.names}
        assert task.test.labels is None
        assert task.test.official is None
        assert len(task.train) == len(task.train_x) == (9 if i < 8 else 45)
    for start in (0, 4, 8):
        assert Counter(n for t in spy.tasks[start : start + 4] for n in t.test.names) == Counter(data.names)
    few, every = found.scores
    assert (few.n_labels, len(few.draws), len(few.folds)) == (9, 2, 4)
    assert few.top1 == pytest.approx(np.mean(few.folds)) == pytest.approx(1 / 3)
    assert every.folds == pytest.approx([1 / 3] * 4)


def test_labels_of_a_fold_change_no_classifier_of_its_own():
    # Random labels that only the sample itself knows: what leaks would be right more often than chance.
    y = np.random.default_rng(0).integers(0, 2, 120)
    data = folded(np.arange(120) % 4)
    data = replace(data, labels=y, classes=["a", "b"])
    for found in evaluate([("run", encoder())], data, protocols=["knn:k=1", "linear:grid=1", "sound-linear:epochs=10,repeats=2"]):
        assert 0.3 < found.scores[0].top1 < 0.7, found.protocol


def test_folds_of_uneven_size_count_alike():
    fold = np.where(np.arange(60) < 45, 0, 1)
    (score,) = evaluate([("run", encoder())], folded(fold), protocols=["knn"])[0].scores
    assert score.top1 == pytest.approx((score.folds[0] + score.folds[1]) / 2)


def test_features_are_computed_once_whatever_the_folds(monkeypatch):
    calls, network = [], encoder()
    network.net.register_forward_hook(lambda *_: calls.append(1))
    evaluate([("run", network)], folded(), protocols=["knn", "linear:grid=1"])
    assert len(calls) == 1


def test_a_test_set_of_ones_own_takes_the_place_of_the_folds():
    (found,) = evaluate([("run", encoder())], folded(), source(30), protocols=["knn"])
    assert (found.train, found.test, found.scores[0].folds) == (60, 30, [])


@pytest.mark.parametrize(
    ("fold", "sentence"),
    [
        (np.arange(60) % 3, "the class 'class 0' of .* is in the held-out fold alone"),
        (np.zeros(60, np.int64), "has 1 fold here, and leaving one out needs two; take more images, or --test"),
    ],
)
def test_folds_that_teach_nothing_are_one_sentence(fold, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate([("run", encoder())], folded(fold), protocols=["knn"])


def test_the_table_and_the_page_show_the_deviation_over_folds():
    subjects, data = [("pixels", None), ("run", encoder())], folded(noise=220)
    (found,) = evaluate(subjects, data, protocols=["knn"])
    lines = found.lines()
    assert "45 train / 60 test (4 folds, each left out in turn)" in " ".join(" ".join(lines).split())
    score = found.scores[1]
    assert any(f"{100 * score.top1:.1f} +- {100 * np.std(score.folds, ddof=1):.1f}" in line for line in lines)
    gain = np.subtract(score.folds, found.scores[0].folds)
    assert any(f"{100 * abs(gain.mean()):.1f} +- {100 * gain.std(ddof=1):.1f} " in line for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "+- deviation over 4 folds; half the 95 % interval of all 60 test images: " in text
    assert max(map(len, lines)) <= 80
    stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert Evaluation.from_json(stored) == found
    cell = _cell(_result(stored).scores[1])
    assert f"deviation {100 * score.fold_std:.1f} over 4 folds" in str(cell)
    (found,) = evaluate(subjects, data, protocols=["knn"], labels=(0.2, 1.0), draws=3)
    text = " ".join(" ".join(found.lines()).split())
    assert "+- deviation over 3 draws of labels; with all of them over 4 folds; half the 95 % interval of all 60 test images: " in text
    (found,) = evaluate(subjects, data, protocols=["knn"], labels=(0.2,), draws=3)
    assert "+- deviation over 3 draws of labels, each the mean of 4 folds" in " ".join(" ".join(found.lines()).split())


def test_evaluations_stored_before_there_were_folds_are_read():
    (found,) = evaluate([("run", encoder())], source(), protocols=["knn"])
    stored = found.to_json()
    del stored["scores"][0]["folds"]
    assert Evaluation.from_json(stored) == found
