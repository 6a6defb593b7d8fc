import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from data_files import folder, pixels

from byol.data import Skipped, open_source

NAMES = ["b.png", "sub/a b.png", "c,d.png"]


@pytest.fixture
def root(tmp_path):
    return folder(tmp_path, NAMES)


def write_list(root, name, text, **options):
    (root / name).write_text(text, **options)
    return open_source(root / name)


def test_a_text_list_keeps_its_order_and_is_relative_to_its_folder(root, monkeypatch):
    monkeypatch.chdir("/")
    source = write_list(root, "list.txt", "# my images\n./c,d.png\n\nb.png\n")
    assert (source.kind, source.names, source.labels) == ("list", ["c,d.png", "b.png"], None)
    np.testing.assert_array_equal(source.read(1), pixels(seed=0))


def test_absolute_paths_are_allowed(root):
    source = write_list(root, "list.txt", f"{root}/b.png\n")
    np.testing.assert_array_equal(source.read(0), pixels(seed=0))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "b.png cat\nsub/a b.png dog\nc,d.png cat\n"),
        ("l.txt", "b.png\tcat\nsub/a b.png\tdog\nc,d.png\tcat\n"),
        ("l.txt", "b.png,cat\nsub/a b.png,dog\nc,d.png,cat\n"),
        ("l.csv", 'b.png,cat\nsub/a b.png,dog\n"c,d.png",cat\n'),
        ("l.csv", 'path,label\nb.png,cat\nsub/a b.png,dog\n"c,d.png",cat\n'),
        ("l.csv", 'id,Class,Image\n1,cat,b.png\n2,dog,sub/a b.png\n3,cat,"c,d.png"\n'),
        ("l.csv", "file;class\r\nb.png;cat\r\nsub/a b.png;dog\r\nc,d.png;cat\r\n"),
        ("l.csv", '\ufeff"path","label"\n"b.png","cat"\n"sub/a b.png","dog"\n"c,d.png","cat"\n'),
        ("l.csv", '1,b.png,cat\n2,sub/a b.png,dog\n3,"c,d.png",cat\n'),
        ("l.tsv", "path\tlabel\nb.png\tcat\nsub/a b.png\tdog\nc,d.png\tcat\n"),
    ],
)
def test_labels_of_a_list_are_found_with_and_without_a_header(root, name, text):
    source = write_list(root, name, text, encoding="utf-8")
    assert source.names == NAMES
    assert (source.classes, source.labels.tolist()) == (["cat", "dog"], [0, 1, 0])


def test_numbers_are_sorted_as_numbers_and_empty_labels_are_unknown(root):
    source = write_list(root, "l.csv", 'path,label\nb.png,10\nsub/a b.png,\n"c,d.png",9\n')
    assert (source.classes, source.labels.tolist()) == (["9", "10"], [1, -1, 0])


def test_missing_files_are_skipped_and_labels_stay_with_their_images(root):
    source = write_list(root, "l.csv", "path,label\nno.png,x\nb.png,y\n")
    assert source.names == ["b.png"]
    assert [source.classes[k] for k in source.labels] == ["y"]
    assert source.skipped == [Skipped("no.png", "missing")]


def test_a_list_without_any_usable_image_is_one_sentence(root):
    with pytest.raises(ValueError, match=r"none of them can be read as an image \(first: no.png: missing\)"):
        write_list(root, "l.txt", "no.png\nnot.png\n")
    with pytest.raises(ValueError, match="lists no file"):
        write_list(root, "l.txt", "\n# nothing\n")
    with pytest.raises(ValueError, match="columns path_to, label and none of them names files"):
        write_list(root, "l.csv", "path_to,label\nno.png,x\n")
    (root / "l.csv").write_bytes(b"path\n\xff\xfe.png\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        open_source(root / "l.csv")


@pytest.mark.parametrize("labels", [["cat", "dog", None], [3, 7, None], [3.0, 7.0, float("nan")]])
def test_parquet_lists_have_labels_of_any_type(root, labels):
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2, 3], "path": NAMES, "label": labels}), root / "l.parquet")
    source = open_source(root / "l.parquet")
    assert source.names == NAMES
    assert source.classes == [str(v).removesuffix(".0") for v in labels[:2]]
    assert source.labels.tolist() == [0, 1, -1]


def test_a_parquet_list_without_labels_or_without_paths(root):
    pyarrow.parquet.write_table(pyarrow.table({"path": NAMES}), root / "l.parquet")
    assert open_source(root / "l.parquet").labels is None
    pyarrow.parquet.write_table(pyarrow.table({"n": [1]}), root / "l.parquet")
    with pytest.raises(ValueError, match="none of them holds paths"):
        open_source(root / "l.parquet")
    (root / "l.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="damaged Parquet"):
        open_source(root / "l.parquet")


def test_a_limit_on_a_list_keeps_the_balance_although_it_is_unsorted(tmp_path):
    folder(tmp_path, [f"{i:02d}.png" for i in range(24)], size=(2, 2))
    rows = "".join(f"{i:02d}.png,{'ab'[i % 2]}\n" for i in range(24))
    (tmp_path / "l.csv").write_text(rows)
    source = open_source(tmp_path / "l.csv", limit=6)
    assert np.bincount(source.labels).tolist() == [3, 3]
    assert source.names == sorted(source.names)
