import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from byol.data import Unreadable, open_source
from byol.encoders import Input, wrap
from byol.evaluation import Knn, Linear, LinearSgd, describe, evaluate, features, load, names, splits

RNG = np.random.default_rng(0)
GREY = Input(channels=1, size=8, mean=(0.3,), std=(0.4,))


def encoder(seed=0):
    torch.manual_seed(seed)
    return wrap(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten()), input=GREY)


def striped(n=60, classes=3, noise=40, seed=0):
    """Images whose class is the row of a bright line in noise; above 100 the line is hard to find."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.integers(0, noise, (n, 8, 8)).astype(np.uint8)
    x[np.arange(n), 2 * y % 8] += min(150, 255 - noise)
    return x, y


def source(n=60, classes=3, **changes):
    x, y = striped(n, classes, **changes)
    return open_source((x, [f"class {v}" for v in y]))


@dataclass
class Torn:
    """A reader that fails for some images."""

    reader: object
    bad: tuple

    def read(self, index):
        if index in self.bad:
            raise Unreadable("torn")
        return self.reader.read(index)


def test_pixels_on_digits_score_what_scikit_learn_says():
    digits = open_source("digits")
    result = evaluate([("pixels", None)], digits, protocols=["knn", Knn(k=1, temperature=None)])
    x = load_digits().data / 16
    y = load_digits().target
    train, test = splits.stratified(digits.labels, 0.2, seed=0)
    centre = x[train].mean(0)
    for found, k, weights in zip(result, (20, 1), (lambda d: np.exp((1 - d) / 0.1), "uniform"), strict=True):
        theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights).fit(x[train] - centre, y[train])
        assert (found.train, found.test, found.classes) == (len(train), len(test), 10)
        # Shrinking to the stored range and float32 may turn a single near tie.
        assert found.scores[0].top1 == pytest.approx(theirs.score(x[test] - centre, y[test]), abs=1.5 / len(test))
        assert found.scores[0].top1 > 0.95


@pytest.mark.parametrize("protocol", ["knn", "linear", "linear-sgd:epochs=4", "linear-sgd:epochs=4,augment=false"])
def test_every_protocol_scores_every_subject_at_every_share(protocol):
    subjects = [("pixels", None), ("random x", encoder(1)), ("run", encoder(0))]
    (result,) = evaluate(subjects, source(), protocols=[protocol], labels=(0.25, 1.0), draws=3)
    assert [(s.name, s.labels, s.n_labels, len(s.draws)) for s in result.scores] == [
        (name, share, n, draws) for name in ("pixels", "random x", "run") for share, n, draws in ((0.25, 12, 3), (1.0, 48, 1))
    ]
    for s in result.scores:
        assert s.top1 == pytest.approx(np.mean(s.draws))
        assert 0 <= s.interval[0] <= s.top1 <= s.interval[1] <= 1
        assert s.top5 is None
    assert result.seconds > 0
    json.dumps(result.to_json(), allow_nan=False)
    assert max(map(len, result.lines())) <= 80


def test_features_that_tell_classes_apart_score_high_and_labels_stay_in_step():
    for result in evaluate([("pixels", None)], source(), protocols=["knn", "linear"], labels=(0.5, 1.0)):
        assert [s.top1 for s in result.scores] == [1, 1]


def test_test_labels_change_the_score_and_nothing_else():
    train, test = source(), source(n=30, noise=100, seed=1)
    turned = replace(test, labels=(test.labels + 1) % 3)
    for protocol in (Knn(k=3), Linear(), LinearSgd(epochs=20)):
        (one,), (other,) = (evaluate([("run", encoder())], train, t, protocols=[protocol]) for t in (test, turned))
        assert one.scores[0].settings == other.scores[0].settings
        assert one.scores[0].top1 > other.scores[0].top1


def test_training_never_sees_a_test_image(monkeypatch):
    seen = []

    class Spy(Knn):
        def predict(self, task):
            seen.append(task)
            return super().predict(task)

    whole = source()
    evaluate([("pixels", None)], whole, protocols=[Spy(k=1)], labels=(0.25, 1.0), draws=2)
    test = splits.stratified(whole.labels, 0.2, seed=0)[1]
    held = {whole.names[i] for i in test}
    rows = {tuple((whole.read(i) / 255).astype(np.float32).ravel().round(5)) for i in test}
    assert [len(t.train) for t in seen] == [12, 12, 48]
    for t in seen:
        assert not held & set(t.train.names)
        assert not rows & {tuple(r.round(5)) for r in t.train_x.numpy()}
        # Features, labels and images are of the same samples, in the same order.
        np.testing.assert_allclose(t.train_x, [t.train.read(i).ravel() / 255 for i in range(len(t.train))], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(t.train_y, t.train.labels)


def test_everything_is_compared_on_the_same_draws():
    (result,) = evaluate([("a", encoder()), ("b", encoder())], source(noise=215), protocols=["knn"], labels=(0.1,), draws=4)
    a, b = result.scores
    assert a.draws == b.draws
    assert len(set(a.draws)) > 1, "the draws are all the same"


def test_the_seed_decides_split_and_draws():
    def run(seed):
        (result,) = evaluate([("run", encoder())], source(noise=215), protocols=["knn"], labels=(0.1, 1.0), seed=seed)
        return result.scores

    assert run(0) == run(0)
    assert [s.draws for s in run(0)] != [s.draws for s in run(1)]


def test_a_test_set_of_its_own_is_used_whole_and_its_classes_are_matched_by_name():
    x, y = striped(30, seed=1)
    order = np.argsort(-y, kind="stable")  # its classes come in another order
    test = open_source((x[order], [f"class {v}" for v in y[order]]))
    test = replace(test, labels=2 - test.labels, classes=test.classes[::-1])
    (result,) = evaluate([("pixels", None)], source(), test, protocols=["knn"])
    assert (result.train, result.test) == (60, 30)
    assert result.scores[0].top1 == 1
    assert "test" in result.split


def test_top_5_is_given_from_6_classes_on():
    (result,) = evaluate([("pixels", None)], source(n=80, classes=8, noise=100), protocols=["knn"])
    assert result.scores[0].top1 <= result.scores[0].top5 <= 1
    assert "  top-5 %" in result.lines()


def test_images_without_a_label_are_left_out_and_counted():
    labels = source().labels.copy()
    labels[::10] = -1
    (result,) = evaluate([("pixels", None)], replace(source(), labels=labels), protocols=["knn"])
    assert result.train + result.test == 54
    assert result.scores[0].top1 == 1
    assert "6 images without a label left out" in result.notes


def test_unreadable_images_are_left_out_and_labels_stay_in_step():
    whole = source()
    torn = replace(whole, reader=Torn(whole.reader, (0, 1, 17)))
    for test in (None, replace(torn, spec="other")):
        (result,) = evaluate([("pixels", None), ("run", encoder())], torn, test, protocols=["linear-sgd:epochs=2"])
        assert result.train + result.test == (57 if test is None else 114)
        assert any("3 images could not be read" in note and "torn" in note for note in result.notes)
        (knn,) = evaluate([("pixels", None)], torn, test, protocols=["knn"])
        assert knn.scores[0].top1 == 1


def test_a_class_of_one_image_trains_and_a_note_says_so():
    x, y = striped(31)
    (result,) = evaluate([("pixels", None)], open_source((x, [*map(str, y[:30]), "rare"])), protocols=["knn"])
    assert result.classes == 4
    assert any("'rare' has a single image" in note for note in result.notes)


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        (lambda: open_source(striped()[0]), None, r"has no labels"),
        (lambda: replace(source(), labels=np.full(60, -1)), None, r"has no labels"),
        (lambda: source(n=10, classes=1), None, r"the one class 'class 0'.*add images of another"),
        (lambda: source(n=3, classes=3), None, r"one image of every class"),
        (source, lambda: source(classes=5), r"2 classes \(first: 'class 3'\) and no image of array is labelled so"),
        (source, lambda: open_source(striped()[0]), r"has no labels"),
    ],
)
def test_labels_that_cannot_be_used_are_one_sentence_before_any_features(train, test, sentence):
    def never(what, done, total):
        raise AssertionError("features were computed first")

    with pytest.raises(ValueError, match=sentence):
        evaluate([("run", encoder())], train(), test and test(), progress=never)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"labels": (0.0,)}, r"label fraction of 0"),
        ({"labels": (2.0,)}, r"label fraction of 2"),
        ({"labels": ()}, r"nothing to evaluate"),
        ({"draws": 0}, r"nothing to evaluate"),
        ({"protocols": ("kn",)}, r"no protocol 'kn' \(did you mean knn\?\)"),
        ({"protocols": ("knn:k=0",)}, r"k is 0; give 1 or more"),
        ({"protocols": ("knn:kk=3",)}, r"no setting 'kk=3' \(did you mean k\?\)"),
        ({"protocols": ("knn:k=many",)}, r"k=many: give a whole number"),
        ({"protocols": ("knn:k=none",)}, r"k=none: give a whole number"),
        ({"subjects": [("a", None), ("a", None)]}, r"two encoders are called 'a'"),
    ],
)
def test_impossible_requests_are_one_sentence(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate(**{"subjects": [("pixels", None)], "train": source(), **wrong})


def test_features_that_are_not_finite_are_one_sentence():
    broken = encoder()
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match=r"run gives features that are not finite numbers for \d+ of 60 samples"):
        evaluate([("run", broken)], source(), protocols=["knn"])


def test_an_encoder_that_collapsed_scores_at_chance():
    constant = encoder()
    with torch.no_grad():
        next(constant.parameters()).fill_(0)
    for result in evaluate([("run", constant)], source(), protocols=["knn", "linear", "linear-sgd:epochs=2"]):
        assert result.scores[0].top1 == pytest.approx(1 / 3, abs=0.01)


def test_protocols_are_found_by_name_and_take_settings():
    assert names() == ["knn", "linear", "linear-sgd", "semi", "finetune", "transfer", "reach", "state", "sound-linear", "evar-linear"]
    assert load("knn:k=200,temperature=0.07") == Knn(k=200, temperature=0.07)
    assert load("knn:centred=true").describe() == "knn k=20 T=0.1, centred cosine"
    assert load("knn:temperature=none").describe() == "knn k=20 plain votes, cosine (pixels centred)"
    assert load("linear-sgd:augment=false,epochs=10") == LinearSgd(augment=False, epochs=10)
    assert [load(name).name for name in names()] == names(), "results are stored under the name that was asked for"
    assert (
        len(
            {
                load(t).name
                for t in (
                    "knn",
                    "knn:k=5",
                    "knn:temperature=none",
                    "knn:centred=true",
                    "linear-sgd",
                    "linear-sgd:augment=false",
                    "linear:held_out=0.1",
                    "linear-sgd:epochs=3",
                )
            }
        )
        == 8
    )
    assert all(describe(name) for name in names())


def test_progress_of_a_protocol_goes_from_nothing_to_everything():
    calls = []
    evaluate([("pixels", None), ("run", encoder())], source(), labels=(0.25, 1.0), draws=3, progress=lambda *c: calls.append(c))
    for name in ("knn", "linear"):
        assert [c[1:] for c in calls if c[0] == name] == [(i, 8) for i in range(9)]


def test_centring_subtracts_the_mean_of_the_training_images_with_labels():
    whole, network = source(noise=215), encoder()
    (result,) = evaluate([("run", network)], whole, protocols=[Knn(k=3, centred=True)])
    train, test = splits.stratified(whole.labels, 0.2, seed=0)
    x = features(network, whole).x
    x, y = x - x[train].mean(0), whole.labels
    theirs = KNeighborsClassifier(3, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.1)).fit(x[train], y[train])
    assert result.scores[0].top1 == theirs.score(x[test], y[test])
    assert result.scores[0].settings["centred"] == "train mean subtracted"
