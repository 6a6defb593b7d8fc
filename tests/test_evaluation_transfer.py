from dataclasses import replace

import numpy as np
import pytest
import torch
from official_sets import MAKERS
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score
from torch import nn

from byol import api
from byol.data import Official, open_source, open_transfer
from byol.encoders import Encoder, Input
from byol.evaluation import Evaluation, Transfer, evaluate
from byol.evaluation.logistic import axes, fit
from byol.evaluation.metrics import average_precision, interval, mean_average_precision, measured
from byol.evaluation.probe import Task
from byol.evaluation.transfer import GRID, uncropped

INPUT = Input(channels=3, size=8, mean=(0.5,) * 3, std=(0.25,) * 3)


def data(n, dim, classes, seed, noise=1.0):
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    x = np.random.default_rng(8).normal(size=(classes, dim))[y] + noise * rng.normal(size=(n, dim))
    return torch.from_numpy(x * np.geomspace(2, 0.1, dim)), torch.from_numpy(y)


def task(train, test_x, classes, val=None, metric="top-1"):
    source = open_source(np.zeros((len(train[0]), 4, 4, 3), np.uint8))
    if val is not None:
        source = replace(source, official=Official(metric, val))
    fields = {"train_x": train[0], "train_y": train[1], "test_x": test_x, "classes": classes, "encoder": None, "train": source}
    return Task(**fields, centred=False, seed=0, precision="fp32", workers=0)


def slow_average_precision(scores, y):
    """Straight from the definition: a threshold at every score, the best precision at each of 11 recalls."""
    counted = [(s, t) for s, t in zip(scores, y, strict=True) if t != -1]
    total = sum(t == 1 for _, t in counted)
    points = []
    for threshold in {s for s, _ in counted}:
        shown = [t for s, t in counted if s >= threshold]
        points.append((sum(shown), sum(shown) / len(shown)))
    return sum(max(p for found, p in points if 10 * found >= k * total) for k in range(11)) / 11


def test_eleven_point_precision_of_cases_worked_out_by_hand():
    assert average_precision(np.array([3.0, 2, 1]), np.array([1, 1, 0])) == 1
    # The one positive is third: a precision of 1/3 at every recall.
    assert average_precision(np.array([3.0, 2, 1]), np.array([0, 0, 1])) == pytest.approx(1 / 3)
    # Found first and third: precision 1 for r <= 0.5 (6 of 11), 2/3 beyond.
    assert average_precision(np.array([3.0, 2, 1]), np.array([1, 0, 1])) == pytest.approx((6 + 5 * 2 / 3) / 11)
    # All tied: all enter at once, whatever their order.
    assert average_precision(np.zeros(4), np.array([1, 0, 0, 0])) == pytest.approx(1 / 4)
    assert average_precision(np.zeros(4), np.array([0, 0, 0, 1])) == pytest.approx(1 / 4)
    # Difficult ones are neither right nor wrong.
    assert average_precision(np.array([9.0, 3, 2, 1]), np.array([-1, 1, 0, 1])) == pytest.approx((6 + 5 * 2 / 3) / 11)
    # What is no number comes last.
    assert average_precision(np.array([np.nan, 1]), np.array([1, 0])) == pytest.approx(1 / 2)


@pytest.mark.parametrize("seed", range(20))
def test_eleven_point_map_equals_the_definition_with_ties_and_difficult_objects(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4 + 10 * seed, (30, 5)).astype(float)
    y = rng.choice([-1, 0, 1], (30, 5), p=[0.2, 0.5, 0.3])
    y[:, 4] = 0  # a class that is nowhere does not count
    expected = np.mean([slow_average_precision(scores[:, c], y[:, c]) for c in range(4)])
    assert mean_average_precision(torch.from_numpy(scores), torch.from_numpy(y)) == pytest.approx(expected, abs=1e-12)


def test_a_map_without_any_object_is_an_error_and_no_number():
    with pytest.raises(ValueError, match="no class is there"):
        measured("11-point mAP", torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64))


def test_top_1_and_mean_per_class_are_those_of_scikit_learn():
    scores, y = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)), data(200, 2, 6, seed=0)[1] ** 2 % 5
    said = scores.argmax(1)
    assert measured("top-1", scores, y) == pytest.approx(accuracy_score(y, said))
    there = sorted(set(y.tolist()))
    assert measured("mean per class", scores, y) == pytest.approx(recall_score(y, said, labels=there, average="macro"))
    inside = torch.isin(said, y)
    assert measured("mean per class", scores[inside], y[inside]) == pytest.approx(balanced_accuracy_score(y[inside], said[inside]))
    assert measured("mean per class", torch.eye(2)[[0, 0, 0, 0]], torch.tensor([0, 0, 0, 1])) == 0.5  # where top-1 is 0.75


def test_the_interval_of_a_metric_holds_it_and_shrinks_with_the_test_set():
    scores, y = torch.randn(400, 4, generator=torch.Generator().manual_seed(0)), torch.arange(400) % 4
    low, high = interval("mean per class", scores, y)
    assert low < measured("mean per class", scores, y) < high
    assert high - low == pytest.approx(4 * (0.25 * 0.75 / 400) ** 0.5, rel=0.25)  # of 400 coins
    assert interval("mean per class", scores, y) == (low, high)


def test_the_grid_is_45_strengths_evenly_spaced_in_the_logarithm():
    assert len(GRID) == 45
    np.testing.assert_allclose(GRID, np.logspace(-6, 5, 45), rtol=1e-12)


@pytest.mark.parametrize("metric", ["top-1", "mean per class"])
def test_choosing_refitting_and_predicting_equal_scikit_learn_on_the_official_validation(metric):
    train, test = data(240, 12, 4, seed=0, noise=2.5), data(80, 12, 4, seed=1)
    val = np.arange(240) % 3 == 0
    grid = (1e-3, 1.0, 30.0, 3000.0)
    ours = Transfer(grid=grid).predict(task(train, test[0], 4, val, metric))
    x, y = train[0].numpy(), train[1].numpy()

    def model(l2, rows):
        return LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-12).fit(x[rows], y[rows])

    score = balanced_accuracy_score if metric == "mean per class" else accuracy_score
    worth = {l2: score(y[val], model(l2, ~val).predict(x[val])) for l2 in grid}
    assert worth[ours.settings["l2"]] == max(worth.values())
    assert len(set(worth.values())) > 1, "the test needs strengths that differ"
    assert ours.settings["l2_chosen"] == "80 validation images"
    theirs = model(ours.settings["l2"], np.ones(240, bool)).predict_proba(test[0].numpy())  # train and validation, features as they are
    np.testing.assert_allclose(ours.scores.softmax(1), theirs, rtol=0, atol=2e-3)


def test_the_metric_of_the_set_decides_which_strength_is_chosen():
    # 90 of 100 are of class 0: a strong penalty says 0 always, which top-1 rewards and the mean per class does not.
    rng = np.random.default_rng(3)
    y = torch.from_numpy((np.arange(400) % 10 == 0).astype(np.int64))
    x = torch.from_numpy(rng.normal(size=(400, 40))) + 0.35 * y[:, None]
    val = np.arange(400) >= 200
    chosen = {m: Transfer().predict(task((x, y), x, 2, val, m)).settings["l2"] for m in ("top-1", "mean per class")}
    assert chosen["mean per class"] < chosen["top-1"]


def test_a_warm_start_ends_at_the_same_minimum_with_less_work():
    x, y = data(150, 10, 4, seed=0)
    design = axes(x, standardise=False)
    exact = {"classes": 4, "l2": torch.tensor([0.1], dtype=torch.float64), "tolerance": 1e-10}
    near = fit(design, y, classes=4, l2=torch.tensor([0.15], dtype=torch.float64), tolerance=1e-10)
    cold, warm = fit(design, y, **exact), fit(design, y, start=near, **exact)
    torch.testing.assert_close(warm.logits(design.z), cold.logits(design.z), rtol=0, atol=1e-7)
    assert warm.iterations < cold.iterations
    assert fit(design, y, start=cold, **exact).iterations == 0


def test_one_vs_rest_equals_a_binary_regression_of_scikit_learn_for_every_class_without_its_difficult_images():
    x, _ = data(120, 8, 3, seed=0)
    rng = np.random.default_rng(1)
    y = rng.choice([-1, 0, 1], (120, 3), p=[0.1, 0.6, 0.3])
    design = axes(x, standardise=False)
    l2 = torch.tensor([0.05, 5.0], dtype=torch.float64)
    found = fit(design, torch.from_numpy(y), classes=3, l2=l2, tolerance=1e-10).logits(design.z)
    for logits, strength in zip(found, l2.tolist(), strict=True):
        for c in range(3):
            known = y[:, c] >= 0
            theirs = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-12).fit(x[known], y[known, c])
            np.testing.assert_allclose(logits[:, c], theirs.decision_function(x), rtol=0, atol=1e-5)


def test_too_few_labels_leave_the_strength_at_its_default_and_say_so():
    train = data(8, 10, 4, seed=0)
    found = Transfer().predict(task(train, train[0], 4)).settings
    assert (found["l2"], found["l2_chosen"]) == (1.0, "fixed: fewer than 5 labels per class")


def test_test_images_have_no_say():
    train, test = data(200, 10, 3, seed=0), data(60, 10, 3, seed=1)
    whole, part = (Transfer().predict(task(train, t, 3)) for t in (test[0], test[0][:5]))
    assert whole.settings == part.settings
    torch.testing.assert_close(whole.scores[:5], part.scores)


class Mean(nn.Module):
    """The colour of each of 2 x 2 fields: features without weights."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def encoder(**changes):
    return Encoder(Mean(), dim=12, input=replace(INPUT, **changes), name="mean", custom=True)


def test_the_short_side_becomes_what_the_encoder_sees():
    wide = encoder(resize=10)
    assert uncropped(wide).input == INPUT
    assert uncropped(wide).net is wide.net
    assert uncropped(encoder()).input == INPUT
    source = open_source("digits", limit=100)
    grey = {"channels": 1, "mean": (0.5,), "std": (0.25,)}
    e = Encoder(Mean(), dim=4, input=replace(INPUT, resize=12, **grey), name="mean", custom=True)
    plain = Encoder(Mean(), dim=4, input=replace(INPUT, **grey), name="mean", custom=True)
    both = evaluate([("e", e)], source, protocols=["knn", "transfer"])
    assert both[1].scores[0].draws == evaluate([("e", plain)], source, protocols=["transfer"])[0].scores[0].draws
    assert both[0].scores[0].draws == evaluate([("e", e)], source, protocols=["knn"])[0].scores[0].draws
    assert both[1].notes == ["seen at 8 px, the encoder's own size; the paper's is 224"]
    assert both[0].notes == []


@pytest.mark.parametrize(("name", "metric"), [("dtd", "top-1"), ("pets", "mean per class"), ("voc2007", "11-point mAP")])
def test_a_set_is_evaluated_by_its_own_metric_on_its_own_test_images_beside_the_baselines(tmp_path, name, metric):
    MAKERS[name](tmp_path)
    (found,) = api.evaluate(encoder(), f"{name}:{tmp_path}", protocols=["transfer"], device="cpu")
    test = open_transfer(f"{name}:{tmp_path}", "test")
    assert (found.metric, found.test, found.train) == (metric, len(test), len(open_source(f"{name}:{tmp_path}")))
    assert [s.name for s in found.scores] == ["pixels", "random mean", "mean"]
    assert all(s.interval[0] <= s.top1 <= s.interval[1] for s in found.scores)
    assert f"{metric} %" in " ".join(" ".join(found.lines()).split())
    assert max(map(len, found.lines())) <= 80
    assert Evaluation.from_json(found.to_json()) == found
    assert any("where the paper has" in note for note in found.notes)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"protocols": ["knn"]}, "several classes, which knn cannot predict; give --protocol transfer"),
        ({"protocols": ["transfer"], "labels": [0.1, 1.0]}, "leave --labels out"),
        ({"protocols": ["transfer"], "test": "digits"}, "cannot be tested on digits: .*; leave --test out"),
    ],
)
def test_what_several_classes_an_image_rule_out_is_one_sentence(tmp_path, options, sentence):
    MAKERS["voc2007"](tmp_path)
    with pytest.raises(ValueError, match=sentence):
        api.evaluate(encoder(), f"voc2007:{tmp_path}", device="cpu", **options)


@pytest.mark.parametrize("wrong", [(), (0.0, 1.0)])
def test_impossible_strengths_are_refused(wrong):
    with pytest.raises(ValueError, match="give one or more numbers above 0"):
        Transfer(grid=wrong)
