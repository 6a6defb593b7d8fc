import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from byol.evaluation import Linear
from byol.evaluation.accuracy import hits
from byol.evaluation.lbfgs import minimise
from byol.evaluation.linear import held_out_rounds
from byol.evaluation.logistic import axes, fit
from byol.evaluation.probe import Task


def data(n, dim, classes, seed, noise=2.0):
    """Correlated features, as a network's are."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    mix = np.random.default_rng(7).normal(size=(dim, dim)) * np.geomspace(1, 0.02, dim)[:, None]
    x = (np.random.default_rng(8).normal(size=(classes, dim))[y] + noise * rng.normal(size=(n, dim))) @ mix + 3
    return torch.from_numpy(x), torch.from_numpy(y)


def task(train, test_x, classes, **changes):
    fields = {"train_x": train[0], "train_y": train[1], "test_x": test_x, "classes": classes, "seed": 0, "centred": False}
    return Task(**{**fields, "encoder": None, "train": None, "precision": "fp32", "workers": 0, **changes})


@pytest.mark.parametrize(("n", "dim"), [(120, 12), (20, 40)])
def test_the_solution_equals_scikit_learns_at_every_strength(n, dim):
    x, y = data(n, dim, 4, seed=0)
    x[:, 3] = 5.0  # a constant feature must do no harm
    others, _ = data(30, dim, 4, seed=1)
    design = axes(x)
    strengths = [0.03, 1.0, 50.0]
    found = fit(design, y, classes=4, l2=torch.tensor(strengths, dtype=torch.float64), tolerance=1e-9)
    assert bool(found.converged.all())
    ours = found.logits(design.project(others)).softmax(2)
    scaler = StandardScaler().fit(x)
    for p, l2 in zip(ours, strengths, strict=True):
        theirs = LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-10).fit(scaler.transform(x), y)
        np.testing.assert_allclose(p, theirs.predict_proba(scaler.transform(others)), rtol=0, atol=1e-6)


def test_a_subset_in_the_axes_of_all_equals_the_subset_alone():
    x, y = data(80, 10, 3, seed=0)
    design, l2 = axes(x), torch.tensor([0.5, 2.0], dtype=torch.float64)
    scaler = StandardScaler().fit(x)  # by all of them, as the axes are
    z = scaler.transform(x)
    for rows in torch.from_numpy(np.random.default_rng(1).random((2, 80)) < 0.7):
        found = fit(design.rows(rows), y[rows], classes=3, l2=l2, tolerance=1e-9)
        for ours, strength in zip(found.logits(design.project(x)).softmax(2), l2.tolist(), strict=True):
            theirs = LogisticRegression(C=1 / strength, solver="newton-cholesky", tol=1e-10).fit(z[rows], y[rows])
            np.testing.assert_allclose(ours, theirs.predict_proba(z), rtol=0, atol=1e-6)


@pytest.mark.parametrize("smaller", ["_CPU_ROWS", "_BYTES", "_ENOUGH"])
def test_neither_parts_of_the_samples_nor_axes_of_a_part_move_the_minimum(monkeypatch, smaller):
    x, y = data(500, 12, 4, seed=0)
    l2 = torch.tensor([0.1, 10.0], dtype=torch.float64)

    def solved():
        design = axes(x)
        return fit(design, y, classes=4, l2=l2, tolerance=1e-10).logits(design.z)

    whole = solved()
    monkeypatch.setattr("byol.evaluation.logistic." + smaller, {"_CPU_ROWS": 7, "_BYTES": 8 * 8 * 33, "_ENOUGH": 3}[smaller])
    torch.testing.assert_close(solved(), whole, rtol=0, atol=1e-7)


def test_float32_finds_the_same_classifier():
    x, y = data(200, 20, 5, seed=0)
    wide, narrow = (axes(x.to(t)) for t in (torch.float64, torch.float32))
    exact = fit(wide, y, classes=5, l2=torch.tensor([1.0], dtype=torch.float64), tolerance=1e-9).logits(wide.z)
    ours = fit(narrow, y, classes=5, l2=torch.tensor([1.0]))
    assert bool(ours.converged.all())
    torch.testing.assert_close(ours.logits(narrow.z).softmax(2).double(), exact.softmax(2), rtol=0, atol=1e-4)


def test_lbfgs_solves_different_problems_side_by_side_and_stops_each_at_its_minimum():
    curvature = torch.tensor([[1.0, 2.0, 3.0], [1.0, 100.0, 1e4], [1e-3, 1.0, 10.0]], dtype=torch.float64)
    at = torch.tensor([[1.0, 2, 3], [-1, 0, 5], [2, 2, 2]], dtype=torch.float64)
    calls = []

    def quartic(x, ids):
        calls.append(ids.tolist())
        d = x - at[ids]
        return (curvature[ids] * d**2 / 2 + d**4 / 4).sum(1), curvature[ids] * d + d**3

    found = minimise(quartic, torch.zeros(3, 3, dtype=torch.float64), tolerance=1e-10, limit=200)
    assert bool(found.converged.all())
    torch.testing.assert_close(found.x, at, rtol=0, atol=1e-6)
    assert calls[0] == [0, 1, 2]
    assert len(calls[-1]) < 3, "problems that are done are still computed"


def test_lbfgs_ends_where_rounding_ends_and_says_that_it_did_not_converge():
    found = minimise(lambda x, ids: ((x - 1).square().sum(1) + 1e6, 2 * (x - 1) + 1e-3), torch.zeros(1, 2), tolerance=1e-9, limit=50)
    assert not bool(found.converged.any())
    assert found.iterations <= 50


def test_l2_is_chosen_on_training_samples_alone():
    # Predictions of the others must not depend on which test samples they come with.
    train, test = data(300, 10, 3, seed=0), data(60, 10, 3, seed=1)
    whole = Linear().predict(task(train, test[0], 3))
    part = Linear().predict(task(train, test[0][:5], 3))
    assert whole.settings == part.settings
    torch.testing.assert_close(whole.scores[:5], part.scores)


@pytest.mark.parametrize(("noise", "seed", "best"), [(1.0, 2, 10.0), (2.0, 0, 0.1)])
def test_choosing_equals_scikit_learns_search_over_the_same_folds(noise, seed, best):
    x, y = data(150, 25, 3, seed=seed, noise=noise)
    rounds, _ = held_out_rounds(y, 0.2, 0)
    z = StandardScaler().fit_transform(x)
    grid = (0.1, 10.0, 1000.0)
    right = []
    for l2 in grid:
        fitted = [(LogisticRegression(C=1 / l2, solver="newton-cholesky", tol=1e-9).fit(z[~r], y[~r]), r) for r in rounds.numpy()]
        right.append(sum((m.predict(z[r]) == y.numpy()[r]).sum() for m, r in fitted))
    assert grid[int(np.argmax(right))] == best
    assert len(set(right)) == 3, "the test needs strengths that differ"
    assert Linear(grid=grid).predict(task((x, y), x, 3)).settings["l2"] == best


def test_with_too_few_labels_the_strength_is_fixed_and_says_so():
    train = data(8, 10, 4, seed=0)
    found = Linear().predict(task(train, train[0], 4)).settings
    assert found["l2"] == 1
    assert "fewer than 5 labels per class" in found["l2_chosen"]


def test_many_labels_have_one_part_held_out():
    y = torch.arange(1200) % 3
    rounds, how = held_out_rounds(y, 0.2, 0)
    assert rounds.shape == (1, 1200)
    assert torch.bincount(y[rounds[0]]).tolist() == [80, 80, 80]
    assert how == "240 held out"


def test_the_linear_protocol_classifies_what_is_separable():
    train, test = data(200, 10, 4, seed=0, noise=0.2), data(50, 10, 4, seed=1, noise=0.2)
    scores = Linear().predict(task(train, test[0], 4)).scores
    assert hits(scores, test[1]).double().mean() > 0.9


@pytest.mark.parametrize("wrong", [{"grid": ()}, {"grid": (0.0, 1.0)}, {"held_out": 0.0}, {"held_out": 1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="give"):
        Linear(**wrong)
