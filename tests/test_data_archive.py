import io
import multiprocessing
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from data_files import encoded, noise, pixels

from byol.data import Unreadable, open_source
from byol.data.archive import safe

FILES = {f"photos/{c}/{i}.png": encoded(pixels(seed=10 * "ab".index(c) + i), "PNG") for c in "ab" for i in range(3)}


def make_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


MAKERS = {
    "stored.zip": lambda p, f: make_zip(p, f, zipfile.ZIP_STORED),
    "deflated.zip": make_zip,
    "a.tar": make_tar,
    "a.tar.gz": lambda p, f: make_tar(p, f, "w:gz"),
    "a.tar.bz2": lambda p, f: make_tar(p, f, "w:bz2"),
    "a.tar.xz": lambda p, f: make_tar(p, f, "w:xz"),
}
archives = pytest.mark.parametrize("kind", MAKERS)


@archives
def test_an_archive_gives_what_its_folder_would(tmp_path, kind):
    path = MAKERS[kind](tmp_path / kind, FILES)
    source = open_source(path)
    assert source.kind == "archive"
    assert source.names == sorted(FILES)
    assert source.classes == ["a", "b"]
    for i, seed in enumerate([0, 1, 2, 10, 11, 12]):
        np.testing.assert_array_equal(source.read(i), pixels(seed=seed))
    assert [p.name for p in tmp_path.iterdir()] == [kind]  # nothing was unpacked


@archives
def test_an_archive_reader_goes_to_another_process_small_and_works_there(tmp_path, kind):
    source = open_source(
        MAKERS[kind](tmp_path / kind, {**FILES, "big.png": encoded(np.random.default_rng(0).bytes(0) or pixels(200, 200), "PNG")})
    )
    sent = pickle.dumps(source.reader)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent).read(4), source.read(4))


@archives
def test_members_that_leave_the_archive_are_ignored(tmp_path, kind):
    good = FILES["photos/a/0.png"]
    evil = dict.fromkeys(["../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "C:\\evil.jpg", "..\\evil.jpg"], good)
    source = open_source(MAKERS[kind](tmp_path / kind, {**evil, "./ok.png": good, "__MACOSX/._ok.png": b"", "notes.txt": b"hi"}))
    assert source.names == ["ok.png"]
    assert source.skipped == []
    assert source.ignored == 7


@pytest.mark.parametrize("name", ["../a.jpg", "a/../../b.jpg", "/a.jpg", "\\\\server\\a.jpg", "C:a.jpg", "a\\..\\..\\b.jpg"])
def test_paths_that_leave_the_archive_are_known(name):
    assert not safe(name)
    assert safe("a/b..c/..d.jpg")


def test_links_in_archives_are_ignored(tmp_path):
    make_tar(tmp_path / "a.tar", {"a.png": FILES["photos/a/0.png"]})
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    source = open_source(tmp_path / "a.tar")
    assert (source.names, source.ignored) == (["a.png"], 3)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", FILES["photos/a/0.png"])
        info = zipfile.ZipInfo("link.png")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    source = open_source(tmp_path / "a.zip")
    assert (source.names, source.ignored) == (["a.png"], 1)


@archives
def test_bad_members_are_listed_and_the_rest_is_used(tmp_path, kind):
    whole = encoded(noise(), "JPEG")
    files = {"good.png": FILES["photos/a/0.png"], "cut.jpg": whole[: len(whole) // 2], "no.jpg": b"<html>", "zero.jpg": b""}
    source = open_source(MAKERS[kind](tmp_path / kind, files))
    assert source.names == ["good.png"]
    reasons = {s.name: s.reason for s in source.skipped}
    assert reasons["no.jpg"] == 'not a JPEG (starts with "<html>")'
    assert reasons["zero.jpg"] == "0 bytes"
    assert reasons["cut.jpg"].startswith("truncated")


def test_a_damaged_zip_member_is_one_skipped_image(tmp_path):
    path = make_zip(tmp_path / "a.zip", FILES, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(FILES["photos/b/1.png"]) + 100] ^= 255
    path.write_bytes(data)
    source = open_source(path)
    assert len(source) == 5
    assert [s.name for s in source.skipped] == ["photos/b/1.png"]


def test_an_encrypted_zip_member_says_so(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a.png": FILES["photos/a/0.png"], "b.png": FILES["photos/a/1.png"]})
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the encryption bit, in both headers of the first member
        data[data.index(mark) + flags] |= 1
    path.write_bytes(data)
    source = open_source(path)
    assert source.names == ["b.png"]
    assert source.skipped[0].reason == "encrypted"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_half_a_tar_still_gives_its_first_images(tmp_path, mode):
    files = {f"{i}.png": encoded(noise(40, seed=i), "PNG") for i in range(8)}
    path = make_tar(tmp_path / "a.tar", files, mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    assert 2 <= len(source) <= 4
    assert source.names == [f"{i}.png" for i in range(len(source))]
    assert source.skipped
    for i in range(len(source)):
        assert source.read(i).shape == (40, 40, 3)


def test_a_changed_tar_is_unreadable_not_a_crash(tmp_path):
    path = make_tar(tmp_path / "a.tar", FILES)
    source = pickle.loads(pickle.dumps(open_source(path).reader))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(Unreadable):
        source.read(5)


def test_a_damaged_or_empty_archive_is_one_sentence(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(make_tar(tmp_path / "b.tar.gz", FILES, "w:gz").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"a\.tar\.gz is"):
        open_source(tmp_path / "a.tar.gz")
    with pytest.raises(ValueError, match=r"c\.zip is empty"):
        open_source(make_zip(tmp_path / "c.zip", {}))
    with pytest.raises(ValueError, match=r"holds 1 file and it is not an image \(first: notes.txt, plain text\)"):
        open_source(make_zip(tmp_path / "d.zip", {"notes.txt": b"hello"}))


@archives
def test_forked_processes_read_one_archive_at_the_same_time(tmp_path, kind):
    """As workers do: the archive is open already when they are forked, and a shared file position would mix up their reads."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    source = open_source(MAKERS[kind](tmp_path / kind, {f"{i}.png": encoded(pixels(50, 50, seed=i), "PNG") for i in range(20)}))
    expected = [source.read(i) for i in range(20)]
    context = multiprocessing.get_context("fork")
    wrong = context.Value("i", 0)

    def read():
        for _ in range(10):
            for i, image in enumerate(expected):
                try:
                    same = np.array_equal(source.read(i), image)
                except Unreadable:
                    same = False
                with wrong.get_lock():
                    wrong.value += not same

    readers = [context.Process(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong.value == 0
