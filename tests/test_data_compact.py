import hashlib
import pickle
import tracemalloc

import numpy as np
import pytest
from data_files import folder, pixels

from byol.data import open_source
from byol.data.compact import NameBuilder, Names, narrow

TEXTS = ["b/2.png", "", "a é/ü.png", "日本語", "a\nb", b"\xff\xfe.png".decode("utf-8", "surrogateescape"), "zero\0byte", "x" * 300]


def test_names_are_what_a_list_of_them_is():
    names = Names.of(TEXTS)
    assert names == TEXTS
    assert TEXTS == names  # noqa: SIM300 - the other direction
    assert list(names) == TEXTS
    assert (len(names), names[-1], names[2]) == (len(TEXTS), TEXTS[-1], TEXTS[2])
    assert names[1:5:2] == TEXTS[1:5:2]
    assert names[::-1] == TEXTS[::-1]
    assert sorted(names) == sorted(TEXTS)
    assert "日本語" in names
    assert names.index("a\nb") == 4
    with pytest.raises(IndexError):
        names[len(TEXTS)]


@pytest.mark.parametrize("other", [TEXTS[:-1], [*TEXTS, "a"], [*TEXTS[:-1], "y"], "b/2.png", None, 3])
def test_names_differ_from_what_is_not_the_same(other):
    assert Names.of(TEXTS) != other


def test_no_names_are_fine():
    for names in (Names.of([]), Names.of(TEXTS)[3:3], NameBuilder().names()):
        assert (len(names), list(names), b"".join(names.pieces()), names.folders()[0]) == (0, [], b"", [])
    assert Names.of([]) == []


def test_a_selection_shares_the_text_and_gives_the_bytes_of_its_own_names():
    names = Names.of(TEXTS * 5000)  # more than are handled at a time
    rows = np.random.default_rng(0).permutation(len(names))[:30_000]
    part = names.take(rows)
    assert part.buffer is names.buffer
    assert part == [TEXTS[i % len(TEXTS)] for i in rows]
    assert b"".join(part.pieces()) == b"".join(t.encode("utf-8", "surrogateescape") + b"\0" for t in part)
    assert b"".join(names.pieces()) == b"".join(t.encode("utf-8", "surrogateescape") + b"\0" for t in TEXTS * 5000)


def test_names_survive_pickling():
    assert pickle.loads(pickle.dumps(Names.of(TEXTS))) == TEXTS


def test_folders_are_the_text_up_to_the_last_slash():
    texts = ["a/b/1", "2", "a/3", "a/b/4", "/5", "x"]
    folders, at = Names.of(texts).folders()
    assert [folders[i] for i in at] == ["a/b/", "", "a/", "a/b/", "/", ""]
    assert len(folders) == len(set(folders))


def test_a_buffer_that_does_not_fit_its_lengths_is_refused():
    with pytest.raises(ValueError, match="2 names"):
        Names.joined(b"abc\0d\0", np.array([3, 2]))


@pytest.mark.parametrize(("top", "dtype"), [(0, np.uint8), (255, np.uint8), (256, np.uint16), (70_000, np.uint32), (2**32, np.uint64)])
def test_numbers_take_the_narrowest_type_that_holds_them(top, dtype):
    values = np.array([0, top], np.int64)
    assert narrow(values).dtype == dtype
    np.testing.assert_array_equal(narrow(values), values)


def test_names_take_less_than_ten_bytes_more_than_their_text():
    tracemalloc.start()
    names = Names.of(f"class_{i // 1000:04d}/photo_{i:08d}.jpg" for i in range(100_000))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < (len(names[0]) + 10) * len(names)


def plain_fingerprint(source):
    """The definition: every name, an empty one, every class, each with a zero byte; sizes and labels as 8 bytes each."""
    digest = hashlib.sha256(f"{source.channels} {source.dtype} {len(source)}".encode())
    for text in (*source.names, "", *source.classes):
        digest.update(text.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(source.headers.nbytes.astype("<i8").tobytes())
    digest.update(source.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def test_the_fingerprint_is_that_of_its_definition(tmp_path):
    source = open_source(folder(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(5)]))
    part = source.subset([7, 1, 2])
    assert source.fingerprint() == plain_fingerprint(source)
    assert part.fingerprint() == plain_fingerprint(part)


def test_a_subset_of_all_and_its_reader_hold_the_names_once(tmp_path):
    folder(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "d.png").write_bytes(b"")
    source = open_source(tmp_path)
    assert source.names.buffer is source.reader.reader.blobs.names.buffer
    assert source.subset([2]).without({0: "why"}).skipped[-1].name == "c.png"
    np.testing.assert_array_equal(source.subset([-1, 0]).read(0), pixels(seed=2))
