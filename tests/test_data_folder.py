import os
from pathlib import Path

import numpy as np
import pytest
from data_files import EXIF_ORIENTATION, damaged, encoded, folder, noise, pixels, write
from PIL import Image

from byol.data import Skipped, Unreadable, describe, open_source, splits


def test_names_are_sorted_bytewise_whatever_the_order_on_disk(tmp_path):
    names = ["b/2.png", "b/10.png", "B/1.png", "a é/ü.png", "a/z.png", "a-/z.png"]
    folder(tmp_path, names)
    assert open_source(tmp_path).names == sorted(names, key=str.encode)


def test_samples_are_read_by_the_order_of_the_names(tmp_path):
    folder(tmp_path, ["b.png", "a.png", "c/d.png"])
    source = open_source(tmp_path)
    for i, seed in enumerate([1, 0, 2]):
        np.testing.assert_array_equal(source.read(i), pixels(seed=seed))


def test_content_decides_not_the_extension(tmp_path):
    write(tmp_path / "a.jpg", pixels(seed=1), "PNG")
    write(tmp_path / "b.dat", pixels(seed=2), "PNG")
    source = open_source(tmp_path)
    assert source.names == ["a.jpg", "b.dat"]
    assert not source.skipped
    np.testing.assert_array_equal(source.read(0), pixels(seed=1))


def test_files_that_are_no_images_are_counted_not_skipped(tmp_path):
    folder(tmp_path, ["a.png"])
    for name in ("notes.txt", "Thumbs.db", ".DS_Store", "sub/.hidden.png", "__MACOSX/a.png", "BMW.txt", "P2.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"BM and P2 are letters, too")
    source = open_source(tmp_path)
    assert source.names == ["a.png"]
    assert source.skipped == []
    assert source.ignored == 7


def test_unreadable_files_are_listed_with_a_reason_and_the_rest_is_used(tmp_path):
    folder(tmp_path, ["good.png"], size=(64, 64))
    whole = {
        form: encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), form) for form in ("JPEG", "PNG", "WEBP")
    }
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "html.jpg").write_bytes(b"<html><body>404</body></html>")
    (tmp_path / "binary.png").write_bytes(b"\0\1\2\3" * 20)
    (tmp_path / "head.png").write_bytes(whole["PNG"][:20])
    for form, data in whole.items():
        (tmp_path / f"cut.{form.lower()}").write_bytes(data[: len(data) // 2])
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    source = open_source(tmp_path)
    assert source.names == ["good.png"]
    reasons = {s.name: s.reason for s in source.skipped}
    assert reasons["empty.jpg"] == "0 bytes"
    assert reasons["html.jpg"] == 'not a JPEG (starts with "<html>")'
    assert reasons["binary.png"] == "not a PNG (starts with 00 01 02 03)"
    for name in ("head.png", "cut.jpeg", "cut.png"):
        assert reasons[name].startswith("truncated: ends after")
    assert reasons["cut.webp"] == f"truncated: {len(whole['WEBP']) // 2:,} of {len(whole['WEBP']):,} bytes"
    assert "HEIC" in reasons["photo.heic"]
    assert len(reasons) == 8


def test_a_truncated_tiff_is_found_without_decoding_the_others(tmp_path):
    folder(tmp_path, ["good.png"])
    data = encoded(noise(), "TIFF")
    (tmp_path / "cut.tif").write_bytes(data[:6000])
    assert [s.name for s in open_source(tmp_path).skipped] == ["cut.tif"]


def test_damage_inside_a_file_is_found_when_it_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(damaged())
    source = open_source(tmp_path)
    assert len(source) == 1
    with pytest.raises(Unreadable):
        source.read(0)


def test_all_grey_is_one_channel_and_any_colour_makes_it_three(tmp_path):
    write(tmp_path / "a.png", pixels(channels=1))
    assert open_source(tmp_path).channels == 1
    write(tmp_path / "b.png", pixels())
    source = open_source(tmp_path)
    assert source.channels == 3
    np.testing.assert_array_equal(source.read(0), np.repeat(pixels(channels=1)[..., None], 3, axis=2))


def test_16_bit_wins_and_8_bit_is_scaled_by_257(tmp_path):
    write(tmp_path / "a.png", pixels(channels=1, dtype=np.uint16))
    write(tmp_path / "b.png", pixels(channels=1))
    source = open_source(tmp_path)
    assert source.dtype == "uint16"
    np.testing.assert_array_equal(source.read(0)[..., 0], pixels(channels=1, dtype=np.uint16))
    np.testing.assert_array_equal(source.read(1)[..., 0], pixels(channels=1).astype(np.int64) * 257)


def test_float_and_8_bit_together_span_0_to_1_and_say_so(tmp_path):
    write(tmp_path / "a.tif", pixels(channels=1, dtype=np.float32), "TIFF")
    write(tmp_path / "b.png", pixels(channels=1))
    source = open_source(tmp_path)
    assert source.dtype == "float32"
    np.testing.assert_allclose(source.read(1)[..., 0], pixels(channels=1) / 255, rtol=1e-6)
    assert "float and integer" in source.notes[0]


def test_npy_samples_of_many_channels_are_read_and_odd_ones_skipped(tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", pixels(6, 8, 5, seed=i, dtype=np.float32))
    np.save(tmp_path / "odd.npy", pixels(6, 8, 4))
    np.save(tmp_path / "list.npy", np.array([[print, 1]], object), allow_pickle=True)
    np.save(tmp_path / "cut.npy", pixels(6, 8, 5))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-9])
    source = open_source(tmp_path)
    assert (source.channels, source.dtype, len(source)) == (5, "float32", 3)
    np.testing.assert_array_equal(source.read(2), pixels(6, 8, 5, seed=2, dtype=np.float32))
    assert [s.name for s in source.skipped] == ["cut.npy", "list.npy", "odd.npy"]
    assert source.skipped[0].reason == "truncated: 359 of 368 bytes"
    assert "pickle" in source.skipped[1].reason
    assert source.skipped[2].reason == "4 channels where most have 5"


@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        (["a/1.png", "b/1.png", "b/c/2.png"], ["a", "b"], [0, 1, 1]),
        (["a/1.png", "2.png", "b/1.png"], [], None),
        (["only/1.png", "only/2.png"], [], None),
        (["photos/a/1.png", "photos/b/1.png"], ["a", "b"], [0, 1]),
        (["10/1.png", "9/1.png"], ["9", "10"], [1, 0]),
        (["train/a/1.png", "train/b/1.png", "test/a/2.png"], ["a", "b"], [0, 0, 1]),
        (["train/1.png", "val/1.png"], [], None),
        (["1.png", "2.png"], [], None),
    ],
)
def test_labels_come_from_the_folders(tmp_path, names, classes, labels):
    folder(tmp_path, names)
    source = open_source(tmp_path)
    assert source.classes == classes
    assert (source.labels is None) if labels is None else source.labels.tolist() == labels


def test_split_folders_are_told_and_can_be_had_apart(tmp_path):
    folder(tmp_path, ["train/a/1.png", "train/b/1.png", "test/a/2.png"])
    source = open_source(tmp_path)
    assert "test/, train/ are read together" in source.notes[0]
    assert {name: rows.tolist() for name, rows in splits(source.names).items()} == {"test": [0], "train": [1, 2]}
    assert splits(["a/1", "b/1"]) == {}


def test_sizes_in_headers_are_upright(tmp_path):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        write(tmp_path / f"{form}.img", pixels(13, 17), form, exif=exif)
    source = open_source(tmp_path)
    for i in range(len(source)):
        assert (source.headers.height[i], source.headers.width[i]) == source.read(i).shape[:2] == (17, 13)


def test_names_with_line_breaks_and_any_bytes_are_fine(tmp_path):
    names = ["a\nb.png", "日本語.png", os.fsdecode(b"\xff\xfe.png"), " .png"]
    folder(tmp_path, names)
    source = open_source(tmp_path)
    assert sorted(source.names) == sorted(names)
    assert len(source.fingerprint()) == 64


def test_loops_of_links_end_and_every_folder_is_read_once(tmp_path):
    folder(tmp_path, ["a/1.png", "b/2.png"])
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "self").symlink_to("self")
    assert open_source(tmp_path).names == ["a/1.png", "b/2.png"]


def test_linked_folders_and_files_are_followed(tmp_path):
    folder(tmp_path / "real", ["x/1.png", "2.png"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").symlink_to(tmp_path / "real" / "x")
    (tmp_path / "data" / "y.png").symlink_to(tmp_path / "real" / "2.png")
    (tmp_path / "data" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(tmp_path / "data")
    assert source.names == ["x/1.png", "y.png"]
    assert source.skipped == [Skipped("gone.png", "a link to nothing")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    folder(tmp_path, ["a.png"])
    os.mkfifo(tmp_path / "pipe.png")
    assert open_source(tmp_path).names == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_skipped(tmp_path):
    folder(tmp_path, ["a.png", "b.png", "c/d.png"])
    (tmp_path / "b.png").chmod(0)
    (tmp_path / "c").chmod(0)
    try:
        source = open_source(tmp_path)
    finally:
        (tmp_path / "c").chmod(0o755)
    assert source.names == ["a.png"]
    assert {s.name: s.reason for s in source.skipped} == {"b.png": "no permission to read it", "c/": "no permission to read it"}


def test_a_folder_without_images_is_one_clear_sentence(tmp_path):
    for i in range(12):
        (tmp_path / f"notes{i:02d}.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"/ holds 12 files and none of them is an image \(first: notes00.txt, plain text\)\. Give"):
        open_source(tmp_path)


def test_an_empty_folder_and_one_of_broken_images_say_which(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="none/ is empty"):
        open_source(tmp_path / "none")
    (tmp_path / "none" / "a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of them can be read as an image \(first: a.jpg: 0 bytes\)"):
        open_source(tmp_path / "none")


def test_a_missing_path_names_the_nearest_one_that_exists(tmp_path):
    folder(tmp_path / "photos", ["a.png"])
    with pytest.raises(ValueError, match=r"phots does not exist; did you mean .*/photos/\?"):
        open_source(tmp_path / "phots")
    with pytest.raises(ValueError, match=r"did you mean the data set cifar10\?"):
        open_source("cifra10")
    with pytest.raises(ValueError, match="nor does"):
        open_source(tmp_path / "no" / "where")


def test_a_single_image_or_a_text_file_is_no_data_set(tmp_path):
    write(tmp_path / "a.png", pixels())
    with pytest.raises(ValueError, match="a single image; give the folder"):
        open_source(tmp_path / "a.png")
    (tmp_path / "a.md").write_text("hello")
    with pytest.raises(ValueError, match=r"a\.md is plain text, which is no data set"):
        open_source(tmp_path / "a.md")


def test_a_limit_keeps_the_balance_of_the_classes(tmp_path):
    folder(tmp_path, [f"{c}/{i:02d}.png" for c, n in (("a", 20), ("b", 10), ("c", 10)) for i in range(n)], size=(2, 2))
    source = open_source(tmp_path, limit=8)
    assert np.bincount(source.labels).tolist() == [4, 2, 2]
    assert source.names == open_source(tmp_path, limit=8).names == sorted(source.names)
    assert len(open_source(tmp_path, limit=100)) == 40
    with pytest.raises(ValueError, match="limit of 0"):
        open_source(tmp_path, limit=0)


def test_a_subset_is_the_same_samples_in_the_order_asked(tmp_path):
    folder(tmp_path, [f"{c}/{i}.png" for c in "ab" for i in range(3)])
    source = open_source(tmp_path)
    part = source.subset([5, 0, 3]).subset([2, 0])
    assert part.names == ["b/0.png", "b/2.png"]
    assert part.labels.tolist() == [1, 1]
    np.testing.assert_array_equal(part.read(1), source.read(5))


def test_the_fingerprint_follows_names_sizes_and_labels(tmp_path):
    folder(tmp_path, ["a/1.png", "b/2.png"])
    first = open_source(tmp_path).fingerprint()
    assert first == open_source(tmp_path).fingerprint()
    assert first != open_source(tmp_path).subset([1, 0]).fingerprint()
    (tmp_path / "b").rename(tmp_path / "c")
    renamed = open_source(tmp_path).fingerprint()
    (tmp_path / "c" / "2.png").write_bytes((tmp_path / "c" / "2.png").read_bytes() + b"\0")
    assert len({first, renamed, open_source(tmp_path).fingerprint()}) == 3


def test_progress_ends_at_the_number_of_files(tmp_path):
    folder(tmp_path, [f"{i}.png" for i in range(130)], size=(1, 1))
    calls = []
    open_source(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(64, 130), (128, 130), (130, 130)]


def test_a_source_says_what_it_is_in_one_line(tmp_path):
    folder(tmp_path, ["a/1.png", "b/2.png"])
    (tmp_path / "b" / "3.jpg").write_bytes(b"")
    assert describe(open_source(tmp_path)) == "2 images (1 skipped), RGB, 8 bit, 16x12, 2 classes"


def test_a_path_may_be_relative_or_start_at_home(tmp_path, monkeypatch):
    folder(tmp_path / "photos", ["a.png"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source("photos").spec == open_source("photos/").spec == "photos/"
    assert len(open_source("~/photos")) == len(open_source(Path("photos"))) == 1


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list open files")
def test_no_file_stays_open(tmp_path):
    folder(tmp_path, [f"{i}.png" for i in range(5)])
    before = len(os.listdir("/proc/self/fd"))
    source = open_source(tmp_path)
    for i in range(len(source)):
        source.read(i)
    assert len(os.listdir("/proc/self/fd")) == before
