"""What is kept of a large folder on disk, and when it is used."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from data_files import damaged, folder, pixels, write

from byol.data import Unreadable, doctor, index, open_source
from byol.data import folder as folders

NAMES = [f"{c}/{i:02d}.png" for c in "abc" for i in range(10)]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of more files than it takes, which last changed a minute ago."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "MANY", 20)
    return settled(folder(tmp_path / "data", NAMES))


def settled(root, ago=60):
    for path, _, _ in os.walk(root):
        os.utime(path, (time.time() - ago,) * 2)
    return root


class Looks(list):
    """The headers that are read, by name."""


@pytest.fixture
def looks(monkeypatch):
    from byol.data import encoded as module

    seen, inspect = Looks(), module.inspect

    def counted(file, size, name):
        seen.append(name)
        return inspect(file, size, name)

    monkeypatch.setattr(module, "inspect", counted)
    return seen


def same(a, b):
    assert a.names == b.names
    assert (a.skipped, a.ignored, a.classes, a.notes, a.channels, a.dtype) == (
        b.skipped,
        b.ignored,
        b.classes,
        b.notes,
        b.channels,
        b.dtype,
    )
    for column in ("height", "width", "nbytes", "kind"):
        ours, theirs = getattr(a.headers, column), getattr(b.headers, column)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert a.headers.kinds == b.headers.kinds
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.fingerprint() == b.fingerprint()


def kept():
    return index.path_of(Path("x")).parent


def test_the_next_start_reads_no_header_and_finds_the_same(root, looks):
    (root / "a" / "empty.jpg").write_bytes(b"")
    (root / "b" / "notes.txt").write_text("hello")
    (root / "b" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    (root / "c" / "gone.png").symlink_to("nowhere")
    write(root / "c" / "grey.jpg", pixels(5, 6, 1), "JPEG")
    settled(root)
    first = open_source(root)
    assert len(looks) == 34
    second = open_source(root)
    assert len(looks) == 34
    same(first, second)
    assert len(second.skipped) == 3
    np.testing.assert_array_equal(second.read(3), first.read(3))


def test_a_limit_and_another_spelling_of_the_path_use_it_too(root, looks, monkeypatch):
    whole = open_source(root)
    monkeypatch.chdir(root.parent)
    assert open_source("data/../data", limit=6).names == open_source(root, limit=6, fresh=True).names
    assert open_source("data").names == whole.names
    assert len(looks) == 60


def test_a_smaller_folder_leaves_nothing_behind(root, looks, monkeypatch):
    monkeypatch.setattr(index, "MANY", 31)
    for _ in range(2):
        open_source(root)
    assert len(looks) == 60
    assert not kept().exists()


def test_a_new_a_gone_and_a_renamed_file_are_seen(root):
    open_source(root)
    write(root / "b" / "new.png", pixels())
    assert "b/new.png" in open_source(settled(root, 50)).names
    (root / "b" / "new.png").unlink()
    assert open_source(settled(root, 40)).names == NAMES
    (root / "a" / "00.png").rename(root / "a" / "first.png")
    assert open_source(settled(root, 30)).names == sorted({*NAMES, "a/first.png"} - {"a/00.png"})


def test_a_change_below_a_linked_folder_is_seen(root, tmp_path):
    folder(tmp_path / "other", ["1.png"])
    settled(tmp_path / "other")
    (root / "d").symlink_to(tmp_path / "other")
    assert "d/1.png" in open_source(settled(root)).names
    write(tmp_path / "other" / "2.png", pixels())
    assert "d/2.png" in open_source(root).names


def test_a_file_of_the_sample_that_was_rewritten_in_place_is_seen(root):
    before = open_source(root)
    write(root / "b" / "03.png", pixels(30, 40))
    after = open_source(root)
    assert after.names == before.names
    assert (after.headers.height[13], before.headers.height[13]) == (30, 12)


def test_a_file_beyond_the_sample_that_was_rewritten_goes_unnoticed_and_reads_as_it_is(root, monkeypatch):
    monkeypatch.setattr(index, "SAMPLE", 2)
    before = open_source(root)
    write(root / "b" / "03.png", pixels(30, 40))
    after = open_source(root)
    assert after.headers.height[13] == before.headers.height[13] == 12
    assert after.read(13).shape == (30, 40, 3)
    assert open_source(root, fresh=True).headers.height[13] == 30
    assert open_source(root).headers.height[13] == 30  # which also renewed what is kept


def test_a_file_that_vanished_under_an_unchanged_time_is_unreadable_when_read(root, monkeypatch):
    monkeypatch.setattr(index, "SAMPLE", 2)
    open_source(root)
    stamp = os.stat(root / "b")
    (root / "b" / "03.png").unlink()
    os.utime(root / "b", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(Unreadable, match="missing"):
        open_source(root).read(13)


def test_a_folder_that_has_just_changed_is_not_trusted(root, looks):
    open_source(root)
    os.utime(root / "b")
    for _ in range(2):
        open_source(root)
    assert len(looks) == 90
    assert list(kept().iterdir()) == []


@pytest.mark.parametrize("what", ["cut", "flipped", "empty", "text", "foreign", "version", "columns", "no zip"])
def test_a_damaged_or_foreign_index_is_ignored_and_written_anew(root, looks, what):
    first = open_source(root)
    path = index.path_of(root)
    whole = path.read_bytes()
    if what in ("cut", "flipped", "empty", "text"):
        at = whole.index(b"a/00.png")
        changed = {"cut": whole[: len(whole) // 2], "flipped": whole[:at] + b"b" + whole[at + 1 :], "empty": b"", "text": b"hello"}
        path.write_bytes(changed[what])
    elif what == "no zip":
        np.save(path.with_suffix(".npy"), np.zeros(3))
        path.with_suffix(".npy").rename(path)
    else:
        with np.load(path) as stored:
            arrays = dict(stored)
        about = json.loads(arrays["about"].tobytes())
        about |= {"foreign": {"folder": "/elsewhere"}, "version": {"format": 0}}.get(what, {})
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        if what == "columns":
            arrays["width"] = arrays["width"][:-1]
        np.savez(path, **arrays)
    same(open_source(root), first)
    assert len(looks) == 60
    same(open_source(root), first)
    assert len(looks) == 60


def test_no_objects_are_unpickled_from_an_index(root, looks):
    open_source(root)
    with np.load(index.path_of(root)) as stored:
        arrays = dict(stored) | {"names": np.array([print], object)}
    np.savez(index.path_of(root), **arrays)
    open_source(root)
    assert len(looks) == 60


def test_a_cache_folder_that_cannot_be_written_is_no_error(root, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert open_source(root).names == open_source(root).names == NAMES


def test_the_doctor_reads_anew(root, looks, monkeypatch):
    monkeypatch.setattr(index, "SAMPLE", 2)
    open_source(root)
    (root / "b" / "03.png").write_bytes(damaged())
    (root / "b" / "04.png").write_bytes(b"")
    assert {s.name for s in doctor(root).unreadable} == {"b/03.png", "b/04.png"}
    assert len(looks) == 60


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_yet_is_seen_once_it_may(root):
    (root / "c").chmod(0)
    try:
        assert len(open_source(root)) == 20
    finally:
        (root / "c").chmod(0o755)
    assert len(open_source(root)) == 30


def test_the_files_are_listed_with_progress(root, monkeypatch):
    from byol.data import listing

    monkeypatch.setattr(listing, "_TOLD", 10)
    calls = []
    open_source(root, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(10, 0), (20, 0), (30, 0), (30, 30)]


@pytest.mark.parametrize("names", [["a-/1", "a/1", "a.png", "a0", "b"], ["x/y-/1", "x/y/1", "x/y.b", "x-", "x/y0/1/2", "x/y0/1-"]])
def test_the_listing_is_in_bytewise_order_of_whole_paths(tmp_path, names):
    folder(tmp_path, names)
    assert folders.list_files(tmp_path).names == sorted(names)


def test_bytes_of_an_index_are_few(root):
    open_source(root)
    assert sum(p.stat().st_size for p in kept().iterdir()) < 5000
