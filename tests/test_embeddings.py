import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from byol.embeddings import write_embeddings

NAMES = ["b/1.png", 'a, "quoted"\n.png', "ß.png"]
FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4) / 7


@pytest.mark.parametrize("labels", [None, [3, -1, 0], ["dog", "cat", "dog"], np.array([1, 2, 3])])
def test_parquet_has_a_row_for_each_image(labels, tmp_path):
    write_embeddings(tmp_path / "f.parquet", NAMES, FEATURES, labels)
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.column_names == (["name", "embedding"] if labels is None else ["name", "label", "embedding"])
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    assert table["name"].to_pylist() == NAMES
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), FEATURES)
    if labels is not None:
        assert table["label"].to_pylist() == list(labels)


@pytest.mark.parametrize("labels", [None, [3, -1, 0], ["dog", "cat", "dog"]])
def test_npz_holds_plain_arrays(labels, tmp_path):
    write_embeddings(tmp_path / "f.npz", NAMES, FEATURES, labels)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as file:
        assert set(file) == {"names", "features"} | ({"labels"} if labels is not None else set())
        assert file["names"].tolist() == NAMES
        assert np.array_equal(file["features"], FEATURES)
        assert file["features"].dtype == np.float32
        if labels is not None:
            assert file["labels"].tolist() == labels


@pytest.mark.parametrize("labels", [None, [3, -1, 0]])
def test_npy_has_the_names_in_a_file_beside_it(labels, tmp_path):
    write_embeddings(tmp_path / "f.npy", NAMES, FEATURES, labels)
    assert np.array_equal(np.load(tmp_path / "f.npy", allow_pickle=False), FEATURES)
    assert json.loads((tmp_path / "f.npy.json").read_text()) == {"names": NAMES, "labels": labels}


@pytest.mark.parametrize("name", ["f.parquet", "f.npz", "f.npy"])
def test_features_of_any_layout_and_type_are_stored_as_float32(name, tmp_path):
    write_embeddings(tmp_path / "sub" / name, NAMES, np.asfortranarray(FEATURES.astype(np.float64))[:, ::-1])
    stored = {
        "f.parquet": lambda p: np.array(pq.read_table(p)["embedding"].to_pylist(), np.float32),
        "f.npz": lambda p: np.load(p)["features"],
        "f.npy": np.load,
    }[name](tmp_path / "sub" / name)
    assert np.array_equal(stored, FEATURES[:, ::-1])
    assert not [p for p in (tmp_path / "sub").iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("names", "features", "labels"),
    [(NAMES[:2], FEATURES, None), (NAMES, FEATURES, [1, 2]), (NAMES, FEATURES[0], None)],
)
def test_unequal_lengths_are_refused_and_nothing_is_written(names, features, labels, tmp_path):
    with pytest.raises(ValueError, match="do not go with"):
        write_embeddings(tmp_path / "f.npz", names, features, labels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["f.parquet", "f.npz", "f.npy"])
def test_labels_that_only_a_pickle_could_hold_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="labels"):
        write_embeddings(tmp_path / name, NAMES, FEATURES, [1, None, {}])
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"'\.csv'; give one of \.parquet, \.npz, \.npy"):
        write_embeddings(tmp_path / "f.csv", NAMES, FEATURES)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_embeddings(tmp_path / "f.npz", NAMES, FEATURES)
    before = (tmp_path / "f.npz").read_bytes()
    monkeypatch.setattr(np, "savez", lambda path, **arrays: path.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_embeddings(tmp_path / "f.npz", NAMES, FEATURES)
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz"]
    assert (tmp_path / "f.npz").read_bytes() == before
