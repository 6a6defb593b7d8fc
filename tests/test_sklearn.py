import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import byol
from byol.sklearn import BYOLTransformer

HEADS = ("hidden=8", "dim=4")
ROWS = BYOLTransformer(epochs=2, encoder="mlp-w8-d1", settings=HEADS)
IMAGES = BYOLTransformer(epochs=1, encoder="small-w8-n2", batch_size=16, settings=HEADS)


@parametrize_with_checks([ROWS])
def test_it_keeps_the_conventions_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    images, classes = load_digits(return_X_y=True)
    return images[:96], classes[:96]


def blobs(n=64):
    rng = np.random.default_rng(0)
    classes = np.arange(n) % 2
    return rng.normal(size=(n, 6)) + 3 * classes[:, None] * np.array([1, 1, 1, 0, 0, 0]), classes


@pytest.mark.parametrize(("shape", "dtype"), [((8, 8), np.uint8), ((8, 8, 1), np.float32), ((8, 8, 3), np.float64), ((8, 8, 3), np.uint8)])
def test_images_of_any_layout_and_type_become_features(digits, shape, dtype):
    x = digits[0][:32].reshape(-1, 8, 8).astype(dtype)
    x = x if len(shape) == 2 else np.repeat(x[..., None], shape[2], 3)
    found = clone(IMAGES).fit(x)
    features = found.transform(x)
    assert features.shape == (32, found.encoder_.dim)
    assert features.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert features.std(0).max() > 0
    assert found.encoder_.input.channels == (shape[2] if len(shape) == 3 else 1)


def test_rows_that_are_images_give_what_the_images_give(digits):
    x = digits[0].astype(np.float32)
    of_rows = clone(IMAGES).set_params(image_shape=(8, 8)).fit(x).transform(x)
    np.testing.assert_array_equal(of_rows, clone(IMAGES).fit(x.reshape(-1, 8, 8)).transform(x.reshape(-1, 8, 8)))


def test_it_works_in_a_pipeline_and_a_grid_search(digits):
    pipeline = make_pipeline(MinMaxScaler(), clone(IMAGES).set_params(image_shape=(8, 8)), LogisticRegression())
    search = GridSearchCV(pipeline, {"byoltransformer__epochs": [1, 2]}, cv=2, error_score="raise").fit(*digits)
    assert set(search.cv_results_["param_byoltransformer__epochs"]) == {1, 2}
    assert search.predict(digits[0]).shape == (96,)
    names = search.best_estimator_[:-1].get_feature_names_out()
    assert names[0] == "byoltransformer0"
    assert len(names) == search.best_estimator_[1].encoder_.dim


@pytest.mark.parametrize("kind", ["rows", "images"])
def test_the_same_seed_gives_the_same_features_and_another_seed_others(kind, digits):
    x, estimator = (blobs()[0], ROWS) if kind == "rows" else (digits[0].reshape(-1, 8, 8), IMAGES)
    np.random.seed(1)
    first = clone(estimator).fit_transform(x)
    np.random.seed(2)
    np.testing.assert_array_equal(clone(estimator).fit_transform(x), first)
    assert np.abs(clone(estimator).set_params(random_state=1).fit_transform(x) - first).max() > 1e-3


def test_what_is_fitted_survives_a_pickle(digits):
    x = digits[0].reshape(-1, 8, 8)
    found = clone(IMAGES).fit(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).transform(x), found.transform(x))


def test_columns_of_any_scale_count_alike():
    x = blobs()[0]
    scaled = x * np.array([1e-9, 1, 1e3, 1e9, 1, 1]) + np.array([0, 5, 0, 0, -3, 1e4])
    np.testing.assert_allclose(clone(ROWS).fit_transform(scaled), clone(ROWS).fit_transform(x), rtol=0, atol=1e-3)


def test_training_on_rows_tells_two_groups_apart():
    x, classes = blobs(256)
    features = BYOLTransformer(epochs=10, encoder="mlp-w32-d2", settings=("hidden=32", "dim=16")).fit_transform(x)
    assert LogisticRegression(max_iter=1000).fit(features[:128], classes[:128]).score(features[128:], classes[128:]) > 0.9


def test_a_method_with_labels_is_given_y_and_others_never_look_at_it():
    x, classes = blobs()
    names = np.array(["cat", "dog"])[classes]
    supervised = BYOLTransformer(method="supervised", encoder="mlp-w8-d1", epochs=2)
    assert supervised.fit(x, names).transform(x).shape == (64, 8)
    with pytest.raises(ValueError, match="give labelled data"):
        supervised.fit(x)
    np.testing.assert_array_equal(clone(ROWS).fit(x, names).transform(x), clone(ROWS).fit(x).transform(x))


def test_a_given_run_is_kept_and_never_written_over(tmp_path, digits):
    x = digits[0].reshape(-1, 8, 8).astype(np.float32)
    found = clone(IMAGES).set_params(run=tmp_path / "kept").fit(x)
    features = byol.load(tmp_path / "kept")
    byol.embed(features, tmp_path / "kept" / "data.npz", tmp_path / "again.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), found.transform(x))
    assert found.verdict_ in ("OK", "WARN", "COLLAPSED")
    with pytest.raises(ValueError, match="holds a run already"):
        found.fit(x)


def test_a_temporary_run_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    clone(ROWS).fit(blobs()[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image_shape": (7, 9)}, r"image_shape \(7, 9\) does not hold the 6 values"),
        ({"encoder": "resnet19"}, "no encoder 'resnet19'; did you mean"),
        ({"settings": ("tau=1",)}, "--set tau: no such setting"),
        ({"method": "byoll"}, "byoll"),
    ],
)
def test_a_mistake_is_one_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        clone(ROWS).set_params(**change).fit(blobs()[0])


def test_samples_of_another_shape_are_refused(digits):
    found = clone(IMAGES).fit(digits[0].reshape(-1, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(8, 4\), and those of fit had \(8, 8\)"):
        found.transform(digits[0].reshape(-1, 8, 8)[:, :, :4])
