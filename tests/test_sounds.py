import io
import os
import pickle
import struct
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

import soundfile
import soxr
from data_files import pixels
from data_files import write as write_image
from sound_files import wave, write

from byol.data import index, sound_reader
from byol.data.folder import open_folder
from byol.data.sounds import is_sounds, open_sounds
from byol.data.source import Unreadable


def opened(path, **options):
    return open_sounds(str(path), path, **options)


def reference(path, rate=16_000):
    """(T,) as the libraries give it: all of the file, the mean of its channels, resampled in one go."""
    samples, of = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(1), of, rate, quality="HQ").clip(-1, 1)


@pytest.fixture
def uncached(monkeypatch):
    monkeypatch.setattr(sound_reader, "CACHE", 0)


def test_a_folder_of_mixed_sounds_is_mono_at_one_rate(tmp_path):
    write(tmp_path / "a.wav", 44_100, 44_100, 2)
    write(tmp_path / "b.flac", 8_000, 8_000, 1, seed=1)
    write(tmp_path / "deep" / "c.ogg", 48_001, 48_000, 1, seed=2)
    write(tmp_path / "deep" / "d.mp3", 22_050, 22_050, 2, seed=3)
    write(tmp_path / "deep" / "e.wav", 16_000, 16_000, 6, seed=4, subtype="PCM_24")
    source = opened(tmp_path)
    assert list(source.names) == ["a.wav", "b.flac", "deep/c.ogg", "deep/d.mp3", "deep/e.wav"]
    assert (source.kind, source.channels, source.dtype, source.skipped) == ("sound", 1, "float32", [])
    assert [source.headers.kinds[k].format for k in source.headers.kind] == ["wav", "flac", "ogg", "mp3", "wav"]
    assert source.headers.kinds[source.headers.kind[0]].colour == "44,100 Hz stereo"
    for i, name in enumerate(source.names):
        clip = source.read(i)
        assert clip.shape == (1, source.headers.width[i], 1)
        assert source.headers.height[i] == 1
        assert clip.dtype == np.float32
        np.testing.assert_allclose(clip[0, :, 0], reference(tmp_path / name), atol=1e-6)
        assert source.headers.nbytes[i] == (tmp_path / name).stat().st_size


@pytest.mark.parametrize("form", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8_000, 1), (11_025, 1), (16_000, 2), (48_000, 1)])
def test_a_window_is_that_part_of_the_whole_clip(tmp_path, uncached, form, rate, channels):
    write(tmp_path / f"a.{form}", 3 * rate + 123, rate, channels)
    source = opened(tmp_path)
    whole = source.read(0)
    total = whole.shape[1]
    rng = np.random.default_rng(0)
    starts = [-700, -1, 0, 1, total - 1_500, total - 700, total - 1, total + 10, -5_000, *rng.integers(0, total - 1_500, 12).tolist()]
    for start in starts:
        window = source.window(0, start, 1_500)
        padded = np.pad(whole, ((0, 0), (5_000, 5_000), (0, 0)))[:, start + 5_000 : start + 6_500]
        np.testing.assert_allclose(window, padded, atol=1e-5, err_msg=str(start))


@pytest.mark.parametrize("rate", [44_099, 96_000, 192_000, 1_000])
def test_windows_are_right_at_strange_rates(tmp_path, uncached, rate):
    write(tmp_path / "a.wav", 2 * rate + 7, rate)
    source = opened(tmp_path)
    whole = source.read(0)
    for start in (0, 777, 12_345, whole.shape[1] - 999):
        np.testing.assert_allclose(source.window(0, start, 999), whole[:, start : start + 999], atol=1e-5)


def test_a_clip_that_is_longer_than_a_block_is_as_in_one_go(tmp_path, monkeypatch):
    monkeypatch.setattr(sound_reader, "BLOCK", 1_000)
    path = write(tmp_path / "a.wav", 20_011, 22_050, 2)
    np.testing.assert_allclose(opened(tmp_path).read(0)[0, :, 0], reference(path), atol=1e-6)


def counted(monkeypatch):
    """A list that gets the frames of each read of libsndfile."""
    frames = []
    read = soundfile.SoundFile.read

    def noted(self, n=-1, *args, **options):
        found = read(self, n, *args, **options)
        frames.append(len(found))
        return found

    monkeypatch.setattr(soundfile.SoundFile, "read", noted)
    return frames


def test_a_window_of_ten_hours_decodes_a_second(tmp_path, monkeypatch):
    path, frames = tmp_path / "night.wav", 10 * 3600 * 8_000
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + frames, b"WAVE", b"fmt ", 16, 1, 1, 8_000, 8_000, 1, 8, b"data", frames)
    with path.open("wb") as file:
        file.write(head)
        file.seek(44 + frames // 2)
        file.write(bytes([128, 255, 128, 0]) * 1_000)
        file.truncate(44 + frames)  # a hole: zeros, which are -1 in a WAV of 8 bits
    read = counted(monkeypatch)
    source = opened(tmp_path)
    assert source.headers.width[0] == 10 * 3600 * 16_000
    assert read == []
    quiet, loud = source.window(0, 5_000_000, 15_200), source.window(0, frames + 1_000, 15_200)
    assert sum(read) <= 2 * (7_600 + 2 * 256 + 2)
    assert np.ptp(quiet[0, 300:-300]) < 1e-3 < 0.5 < np.ptp(loud)


def test_kept_clips_are_exact_whole_and_in_part_from_many_threads(tmp_path, monkeypatch):
    for i in range(6):
        write(tmp_path / f"{i}.wav", 4_000 + i, 8_000, seed=i)
    source = opened(tmp_path)
    expected = [reference(tmp_path / f"{i}.wav") for i in range(6)]
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for i in rng.integers(0, 6, 20).tolist():
            start = int(rng.integers(0, 7_000))
            clip, window = source.read(i), source.window(i, start, 500)
            if abs(clip[0, :, 0] - expected[i]).max() > 1e-6 or (window != clip[:, start : start + 500]).any():
                wrong.append(i)
            clip[:] = 9  # nobody else's

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert wrong == []
    read = counted(monkeypatch)
    source.read(0), source.window(3, 0, 100)
    assert read == []


def test_nothing_is_kept_of_a_collection_that_is_larger_than_the_cache(tmp_path, uncached, monkeypatch):
    write(tmp_path / "a.wav", 4_000)
    source = opened(tmp_path)
    source.read(0)
    read = counted(monkeypatch)
    source.read(0)
    assert sum(read) == 4_000


def test_a_reader_travels_without_its_clips(tmp_path):
    write(tmp_path / "a.wav", 100_000)
    source = opened(tmp_path)
    clip = source.read(0)
    packed = pickle.dumps(source.reader)
    assert len(packed) < 2_000
    assert (pickle.loads(packed).read(0) == clip).all()


def test_what_cannot_be_read_is_skipped_with_a_reason(tmp_path):
    write(tmp_path / "good.wav")
    for form in ("wav", "flac", "mp3"):
        data = write(tmp_path / f"cut.{form}", 60_000).read_bytes()
        (tmp_path / f"cut.{form}").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "eight.wav").write_bytes(b"RIFF\0\0\0\0")
    write(tmp_path / "none.wav", samples=np.zeros((0, 1), np.float32))
    (tmp_path / "page.flac").write_text("<html>404 not found, and nothing but text is in here</html>")
    (tmp_path / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    (tmp_path / "garbage.ogg").write_bytes(b"OggS" + bytes(range(200)))
    (tmp_path / "notes.txt").write_text("not a sound, and never meant as one")
    source = opened(tmp_path)
    reasons = {s.name: s.reason for s in source.skipped}
    assert list(source.names) == ["good.wav"]
    assert source.ignored == 1
    assert reasons.pop("cut.wav").startswith("truncated: 60,022 of 120,044 bytes")
    assert reasons.pop("cut.flac") == "its end is missing or damaged, of 60,000 frames"
    assert reasons.pop("cut.mp3") == "its end is missing or damaged, of 60,000 frames"
    assert reasons.pop("empty.wav") == "0 bytes"
    assert reasons.pop("eight.wav") == "8 bytes, too few for a sound"
    assert reasons.pop("none.wav") == "no sound in it (0 frames)"
    assert reasons.pop("page.flac") == 'not a FLAC sound (starts with "<html>")'
    assert reasons.pop("phone.m4a") == "AAC, which libsndfile cannot read; convert it to FLAC or WAV"
    assert reasons.pop("garbage.ogg").startswith("cannot be decoded (")
    assert reasons == {}


def test_nan_and_bytes_lost_later_are_unreadable_and_loud_floats_are_clipped(tmp_path, uncached):
    write(tmp_path / "loud.wav", samples=np.float32([0.5, 3, -3, 0.25]), subtype="FLOAT")
    write(tmp_path / "nan.wav", samples=np.float32([0, np.nan, np.inf, 0]), subtype="FLOAT")
    write(tmp_path / "shrinks.wav", 4_000)
    source = opened(tmp_path)
    assert source.read(0).ravel().tolist() == [0.5, 1, -1, 0.25]
    for work in (lambda: source.read(1), lambda: source.window(1, 0, 4)):
        with pytest.raises(Unreadable, match="2 of 4 values are NaN or infinite"):
            work()
    write(tmp_path / "shrinks.wav", 3_000)
    with pytest.raises(Unreadable, match="another length"):
        source.read(2)
    (tmp_path / "shrinks.wav").unlink()
    with pytest.raises(Unreadable, match="missing"):
        source.window(2, 0, 10)


def test_labels_limits_and_order_are_those_of_images(tmp_path):
    for word in ("yes", "no"):
        for i in range(6):
            write(tmp_path / word / f"{i}.wav", 800, seed=i)
    source = opened(tmp_path, limit=4)
    assert source.classes == ["no", "yes"]
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.notes == ("4 of 12 sounds, evenly spread",)
    whole = opened(tmp_path)
    assert whole.fingerprint() == opened(tmp_path).fingerprint() != source.fingerprint()
    some = whole.subset([11, 0])
    assert (some.window(0, 5, 50) == whole.window(11, 5, 50)).all()


@pytest.mark.parametrize("form", ["zip", "stored", "tar", "tar.gz"])
def test_an_archive_holds_the_same_sounds_as_its_folder(tmp_path, form):
    folder = tmp_path / "sounds"
    for i, name in enumerate(("a/1.wav", "a/2.flac", "b/3.ogg", "b/4.mp3")):
        write(folder / name, 9_000, 22_050, seed=i)
    (folder / "b" / "read me.txt").write_text("no sound")
    (folder / "b" / "bad.wav").write_text("nor is this, in spite of its name and of its length")
    path = tmp_path / f"sounds.{form}"
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*"))
    if form in ("zip", "stored"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if form == "zip" else zipfile.ZIP_STORED) as archive:
            [archive.write(folder / name, name) for name in names]
    else:
        with tarfile.open(path, "w:gz" if form == "tar.gz" else "w") as archive:
            [archive.add(folder / name, name) for name in names]
    ours, theirs = opened(path), opened(folder)
    assert is_sounds(path)
    assert list(ours.names) == list(theirs.names)
    assert (ours.labels == theirs.labels).all()
    assert [(s.name, s.reason) for s in ours.skipped] == [(s.name, s.reason) for s in theirs.skipped]
    assert ours.ignored == theirs.ignored == 1
    again = pickle.loads(pickle.dumps(ours.reader))
    for i in range(4):
        assert (ours.read(i) == theirs.read(i)).all()
        assert (again.read(i) == theirs.read(i)).all()


def test_windows_of_an_archive_member_read_no_more_than_they_need(tmp_path, uncached):
    write(tmp_path / "long.wav", 400_000, 16_000)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "long.wav", "long.wav")
    source = opened(tmp_path / "a.tar")
    expected = soundfile.read(tmp_path / "long.wav", dtype="float32")[0][300_000:300_100]
    assert (source.window(0, 300_000, 100)[0, :, 0] == expected).all()


def test_a_list_names_its_sounds_and_their_classes(tmp_path):
    for i in range(3):
        write(tmp_path / "clips" / f"{i}.wav", 500 + i)
    (tmp_path / "list.csv").write_text("path,label\nclips/2.wav,dog\nclips/0.wav,cat\nclips/7.wav,cat\n")
    source = opened(tmp_path / "list.csv")
    assert is_sounds(tmp_path / "list.csv")
    assert list(source.names) == ["clips/2.wav", "clips/0.wav"]
    assert source.labels.tolist() == [1, 0]
    assert [(s.name, s.reason) for s in source.skipped] == [("clips/7.wav", "missing")]
    assert source.headers.width.tolist() == [502, 500]


def test_an_npz_of_sounds_is_cut_at_its_offsets(tmp_path):
    samples = np.int16(wave(5_000, 8_000)[:, 0] * 32_767)
    file = io.BytesIO()
    soundfile.write(file, samples, 8_000, format="FLAC")
    beside = {"offsets": [0, 1_000, 1_500, 5_000], "sr": 8_000, "y": [1, 0, 1], "classes": ["no", "yes"], "speaker": [4, 4, 5]}
    np.savez(tmp_path / "flac.npz", flac=np.frombuffer(file.getvalue(), np.uint8), **beside)
    np.savez(tmp_path / "x.npz", x=samples, **beside)
    np.savez(tmp_path / "rows.npz", x=samples.reshape(5, 1_000), sr=8_000)
    for name in ("flac.npz", "x.npz"):
        source = opened(tmp_path / name)
        assert is_sounds(tmp_path / name)
        assert source.headers.width.tolist() == [2_000, 1_000, 7_000]
        assert (source.labels.tolist(), source.classes, source.groups.tolist()) == ([1, 0, 1], ["no", "yes"], [4, 4, 5])
        expected = soxr.resample(np.float32(samples[1_000:1_500]) / 32_768, 8_000, 16_000)
        np.testing.assert_allclose(pickle.loads(pickle.dumps(source.reader)).read(1)[0, :, 0], expected, atol=1e-6)
    assert opened(tmp_path / "rows.npz", rate=8_000).read(2)[0, :, 0].tolist() == (np.float32(samples[2_000:3_000]) / 32_768).tolist()


def test_sounds_are_told_from_images_by_their_names(tmp_path):
    write_image(tmp_path / "one" / "cover.jpg", pixels(), "JPEG")
    write(tmp_path / "one" / "1.wav")
    write(tmp_path / "one" / "2.wav")
    assert is_sounds(tmp_path / "one")
    write_image(tmp_path / "two" / "a.png", pixels())
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 8, 8)))
    (tmp_path / "list.txt").write_text("one/cover.jpg\none/cover.jpg\n")
    assert not any(map(is_sounds, (tmp_path / "two", tmp_path / "x.npz", tmp_path / "list.txt", tmp_path / "nowhere")))


@pytest.mark.parametrize("what", ["empty", "images", "damaged", "missing"])
def test_data_without_a_sound_is_refused_in_one_sentence(tmp_path, what):
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "images" / "a.png", pixels())
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{what}.*\. Give a folder with .wav, .flac, .ogg or .mp3 files"):
        opened(tmp_path / what)


def test_a_large_folder_of_sounds_is_not_read_again_at_the_same_rate(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "MANY", 3)
    root = tmp_path / "clips"
    for i in range(4):
        write(root / "a" / f"{i}.wav", 900 + i, 8_000)
    write_image(root / "b" / "cover.png", pixels())
    for folder in (root, root / "a", root / "b"):
        os.utime(folder, (1, 1))
    first = opened(root)

    def refuse(*args, **options):
        raise KeyError("read anew")

    monkeypatch.setattr(soundfile, "SoundFile", refuse)
    again = opened(root)
    assert again.fingerprint() == first.fingerprint()
    assert again.headers.width.tolist() == first.headers.width.tolist() == [1_800, 1_802, 1_804, 1_806]
    assert again.ignored == first.ignored == 1
    assert list(open_folder("images", root).names) == ["b/cover.png"]
    with pytest.raises(KeyError, match="read anew"):
        opened(root, rate=8_000)


@pytest.mark.parametrize("library", ["soundfile", "soxr"])
def test_a_library_that_is_missing_is_named_in_one_sentence(tmp_path, monkeypatch, library):
    write(tmp_path / "a.wav", 900, 8_000)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf"by {library}, which is not installed; pip install 'byol\[audio\]'"):
        opened(tmp_path).read(0)


def test_a_reader_that_knows_no_windows_is_cut(tmp_path):
    class Whole:
        def read(self, index, shrink=1):
            return np.full((1, 10, 1), index + 1, np.float32)

    write(tmp_path / "a.wav")
    source = replace(opened(tmp_path), reader=Whole())
    assert source.window(0, 8, 4).ravel().tolist() == [1, 1, 0, 0]


def test_a_rate_that_no_sound_has_is_damage(tmp_path):
    for rate in (1, 100, 1_000_000, 2_000_000_000):
        write(tmp_path / f"{rate}.wav", rate=rate)
    source = opened(tmp_path)
    assert list(source.names) == ["100.wav", "1000000.wav"]
    assert {s.reason for s in source.skipped} == {f"a rate of {r:,} Hz, and a sound may have 100 to 1,000,000" for r in (1, 2_000_000_000)}
    for i in range(2):
        assert source.read(i).shape[1] == source.headers.width[i]
