import pickle

import numpy as np
import pytest

from byol.data import Unreadable, open_source

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (5, 6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("x", "axes"),
    [
        (X, "N, H, W, C"),
        (np.moveaxis(X, 3, 1), "N, C, H, W"),
        (X[..., 0], "N, H, W"),
        (X[..., :1], "N, H, W, C"),
        (np.repeat(X, 2, 3), "N, H, W, C"),
    ],
)
def test_every_layout_is_read_and_what_was_assumed_is_said(x, axes):
    source = open_source(x)
    assert f"read as ({axes})" in source.notes[0]
    assert source.read(2).shape == (6, 8, source.channels)
    np.testing.assert_array_equal(source.read(2)[..., 0], X[2, ..., 0])


@pytest.mark.parametrize(
    ("x", "dtype", "back"),
    [
        (X.astype(np.int64), "uint8", X),
        (X.astype(np.uint16) * 200, "uint16", X.astype(int) * 200),
        (X.astype(np.int32) * 200, "uint16", X.astype(int) * 200),
        (X.astype(np.int16) - 5, "float32", X.astype(int) - 5),
        (X / 255, "float32", (X / 255).astype(np.float32)),
        (X > 99, "uint8", (X > 99) * 255),
    ],
)
def test_values_keep_their_meaning_in_the_narrowest_depth(x, dtype, back):
    source = open_source(x)
    assert source.dtype == dtype == source.read(0).dtype
    np.testing.assert_array_equal(np.stack([source.read(i) for i in range(5)]), back)


def test_npy_and_npz_give_the_same_as_the_array(tmp_path):
    y = np.array([2, 0, 1, -1, 2])
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "stored.npz", x=X, y=y)
    np.savez_compressed(tmp_path / "packed.npz", y=y, x=X, classes=np.array(["a", "b", "c"]))
    np.savez(tmp_path / "one.npz", whatever=X)
    for name in ("x.npy", "stored.npz", "packed.npz", "one.npz"):
        source = open_source(tmp_path / name)
        assert (source.kind, len(source), source.channels) == ("array", 5, 3)
        np.testing.assert_array_equal(np.stack([source.read(i) for i in range(5)]), X)
    assert open_source(tmp_path / "packed.npz").classes == ["a", "b", "c"]
    stored = open_source(tmp_path / "stored.npz")
    assert (stored.classes, stored.labels.tolist()) == (["0", "1", "2"], [2, 0, 1, -1, 2])


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_file_reader_goes_to_another_process_small_and_works_there(tmp_path, name):
    x = np.zeros((20, 40, 40), np.uint8)
    x[3] = 7
    np.save(tmp_path / name, x) if name == "x.npy" else np.savez(tmp_path / name, x=x)
    source = open_source(tmp_path / name)
    sent = pickle.dumps(source.reader)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).read(3)[..., 0], x[3])


def test_an_array_in_memory_goes_to_another_process_with_its_values():
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(open_source(X).reader)).read(3), X[3])


def test_reading_gives_a_copy_so_nobody_writes_into_the_data(tmp_path):
    np.save(tmp_path / "x.npy", X)
    for source in (open_source(X), open_source(tmp_path / "x.npy")):
        image = source.read(0)
        image[:] = 1
        np.testing.assert_array_equal(source.read(0), X[0])


@pytest.mark.parametrize(
    ("y", "classes", "labels"),
    [(list("baabc"), ["a", "b", "c"], [1, 0, 0, 1, 2]), ([[4], [2], [2], [4], [10]], ["2", "4", "10"], [1, 0, 0, 1, 2])],
)
def test_labels_beside_an_array_may_be_names_or_numbers(y, classes, labels):
    source = open_source((X, np.array(y)))
    assert (source.classes, source.labels.tolist()) == (classes, labels)


def test_values_that_would_end_a_run_are_unreadable():
    x = X.astype(np.float32)
    x[1, 0, 0, 0] = np.nan
    source = open_source(x)
    assert source.read(0).dtype == np.float32
    with pytest.raises(Unreadable, match="1 of 144 values are NaN or infinite"):
        source.read(1)


def test_pickle_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([print, 1], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([print, 1], object))
    for name in ("x.npy", "x.npz"):
        with pytest.raises(ValueError, match="pickle"):
            open_source(tmp_path / name)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (X[0, 0], r"shape 8 x 3; images are"),
        (X[:0], "shape 0 x 6 x 8 x 3"),
        ((X, np.arange(4)), r"5 images, but its classes have the shape \(4,\)"),
        ((X, np.linspace(0, 1, 5)), "fractions as classes"),
        (X.astype(complex), "values of type complex128"),
    ],
)
def test_what_is_no_set_of_images_is_one_sentence(spec, words):
    with pytest.raises(ValueError, match=words):
        open_source(spec)


def test_an_npz_without_x_or_a_damaged_one_is_one_sentence(tmp_path):
    np.savez(tmp_path / "a.npz", one=X, two=X)
    with pytest.raises(ValueError, match="the arrays one, two and none is called x"):
        open_source(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"a\.npz"):
        open_source(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", X)
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"b\.npy is damaged"):
        open_source(tmp_path / "b.npy")


def test_the_fingerprint_of_an_array_follows_its_values():
    other = X.copy()
    other[4, 5, 7, 2] ^= 1
    assert open_source(X).fingerprint() == open_source(X.copy()).fingerprint() != open_source(other).fingerprint()
    assert open_source((X, np.array([0, 1, 0, 0, 0]))).fingerprint() != open_source((X, np.array([0, 0, 0, 0, 1]))).fingerprint()


def test_a_limit_takes_evenly_spread_rows():
    assert open_source(np.zeros((10, 2, 2)), limit=5).names == ["1", "3", "5", "7", "9"]
