import json

import numpy as np
import pytest
from data_files import damaged, encoded, folder, noise, pixels, write

from byol.data import doctor, open_source


def text(report):
    lines = report.lines()
    assert max(map(len, lines)) <= 80
    return "\n".join(lines)


def test_a_healthy_folder_is_good_to_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder("photos", [f"{c}/{i:02d}.png" for c in ("daisy", "rose") for i in range(60)], size=(40, 50))
    report = doctor("photos")
    assert (report.images, report.folders, report.channels, report.dtype) == (120, 2, 3, "uint8")
    assert report.classes == {"daisy": 60, "rose": 60}
    assert report.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.png"))
    assert report.doubts() == []
    shown = text(report)
    assert report.lines()[0] == f"photos/  120 images in 2 folders, {report.bytes // 1000} kB"
    assert "all 50x40" in shown
    assert "2 class folders, 60 each" in shown
    assert report.lines()[-1] == "Good to go."


def test_mean_and_std_are_those_of_the_decoded_pixels(tmp_path):
    folder(tmp_path, ["a.png", "b.png"])
    x = np.stack([pixels(seed=s) for s in range(2)]) / 255
    np.testing.assert_allclose(doctor(tmp_path).mean, x.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(doctor(tmp_path).std, x.std(axis=(0, 1, 2)), rtol=1e-12)


def test_everything_awkward_is_counted(tmp_path):
    folder(tmp_path, [f"a/{i:03d}.png" for i in range(110)], size=(40, 50))
    write(tmp_path / "b" / "grey.png", pixels(60, 80, 1, seed=500))
    write(tmp_path / "b" / "small.jpg", pixels(20, 90, seed=501), "JPEG")
    write(tmp_path / "b" / "flat.png", np.full((40, 50, 3), 90, np.uint8))
    (tmp_path / "b" / "notes.txt").write_text("hello")
    (tmp_path / "b" / "broken.jpg").write_bytes(b"<html>")
    (tmp_path / "b" / "damaged.png").write_bytes(damaged(seed=502))
    report = doctor(tmp_path)
    assert report.images == 113
    assert report.formats == {"png": 112, "jpeg": 1}
    assert report.colours == {"RGB": 112, "grey": 1}
    assert (report.small, report.flat, report.ignored) == (1, 1, 1)
    assert report.sizes.smallest == (90, 20)
    assert report.sizes.largest == (80, 60)
    assert report.sizes.median == (50, 40)
    assert [s.name for s in report.unreadable] == ["b/broken.jpg", "b/damaged.png"]
    shown = text(report)
    assert "RGB 112, grey 1 (read as RGB)" in shown
    assert 'unreadable 2      b/broken.jpg: not a JPEG (starts with "<html>")' in shown
    assert "from 90x20 to 80x60, median 50x40" in shown
    assert report.lines()[-1] == "Usable, but 2 (2 %) unreadable."


def test_duplicates_are_found_by_pixels_not_by_bytes(tmp_path):
    folder(tmp_path, [f"a/{i:03d}.png" for i in range(110)])
    write(tmp_path / "a" / "copy.bmp", pixels(seed=3), "BMP")
    write(tmp_path / "a" / "copy.png", pixels(seed=3), "PNG", compress_level=1)
    report = doctor(tmp_path)
    assert (report.duplicates.groups, report.duplicates.files) == (1, 3)
    assert report.duplicates.examples == (("a/003.png", "a/copy.bmp", "a/copy.png"),)
    assert "1 group, 3 files (same pixels)" in text(report)
    assert report.lines()[-1] == "Good to go."


def test_copies_with_another_label_are_a_doubt(tmp_path):
    folder(tmp_path, [f"a/{i:03d}.png" for i in range(110)])
    write(tmp_path / "b" / "x.png", pixels(seed=3))
    report = doctor(tmp_path)
    assert (report.duplicates.conflicts, report.duplicates.leaks) == (1, 0)
    assert "a/003.png = b/x.png" in text(report)
    assert report.lines()[-1] == "Usable, but 1 picture under different labels."


def test_copies_across_train_and_test_are_a_doubt(tmp_path):
    folder(tmp_path, [f"train/{'ab'[i % 2]}/{i:03d}.png" for i in range(110)])
    for c in "ab":
        write(tmp_path / "test" / c / "new.png", pixels(seed=1000 + ord(c)))
    write(tmp_path / "test" / "b" / "x.png", pixels(seed=3))
    report = doctor(tmp_path)
    assert (report.duplicates.conflicts, report.duplicates.leaks) == (0, 1)
    assert "in more than one split" in report.verdict()


def test_few_many_copies_and_flat_images_are_doubts():
    assert "only 3 images" in doctor(np.stack([pixels(40, 40, seed=s) for s in range(3)])).verdict()
    x = np.stack([pixels(40, 40, seed=s % 80) for s in range(120)])
    assert "40 (33 %) copies of others" in doctor(x).verdict()
    x = np.stack([pixels(40, 40, seed=s) for s in range(120)])
    x[:6] = np.arange(6)[:, None, None, None]
    assert doctor(x).verdict() == "Usable, but 6 (5 %) of nearly one colour."


def test_other_depths_show_their_range():
    x = np.stack([pixels(40, 40, 1, seed=s, dtype=np.uint16) for s in range(120)])
    report = doctor(x)
    assert (report.low, report.high) == (x.min(), x.max())
    assert f"values     {x.min():,} to {x.max():,}" in text(report)
    assert "16 bit" in text(report)


def test_unusable_data_says_so_and_why():
    report = doctor(np.full((3, 4, 4), np.nan, np.float32))
    assert report.lines()[-1] == "Not usable: none of 3 images can be decoded."
    assert report.to_json()["usable"] is False
    assert doctor(np.zeros((1, 4, 4), np.uint8)).verdict().startswith("Not usable: a single image")


def test_no_data_at_all_is_the_same_sentence_as_for_opening(tmp_path):
    with pytest.raises(ValueError, match="is empty"):
        doctor(tmp_path)


def test_the_report_is_plain_json(tmp_path):
    folder(tmp_path, ["a/1.png", "b/2.png"])
    (tmp_path / "b" / "3.jpg").write_bytes(b"")
    found = json.loads(json.dumps(doctor(tmp_path).to_json()))
    assert found["images"] == 2
    assert found["unreadable"] == [{"name": "b/3.jpg", "reason": "0 bytes"}]
    assert found["sizes"] == {"smallest": [16, 12], "median": [16, 12], "largest": [16, 12]}
    assert found["verdict"].startswith("Usable, but")


def test_long_and_odd_names_keep_within_80_columns(tmp_path):
    folder(tmp_path, ["good.png"])
    (tmp_path / ("x" * 120 + "\n\u202e.jpg")).write_bytes(b"")
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(encoded(noise(), "JPEG")[:500])
    assert "and 3 more" in text(doctor(tmp_path))
    assert "\u202e" not in text(doctor(tmp_path))


def test_an_open_source_can_be_examined_and_progress_is_told():
    calls = []
    source = open_source("digits", limit=100)
    report = doctor(source, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (100, 100)
    assert "10 classes" in text(report)
    assert "100 images with a side below 32 pixels" in text(report)
    assert report.lines()[-1] == "Good to go."
