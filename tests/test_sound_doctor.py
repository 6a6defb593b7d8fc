import json
import shutil

import numpy as np
import pytest

pytest.importorskip("soundfile")

from sound_files import wave, write

from byol.data.sound_doctor import doctor_sounds, flat_tops
from byol.data.sounds import open_sounds


def report_on(path):
    return doctor_sounds(open_sounds(f"{path.name}/", path))


def test_the_report_counts_what_a_person_should_know(tmp_path):
    root = tmp_path / "clips"
    for i in range(3):
        write(root / "dog" / f"{i}.wav", 16_000 * (i + 1), seed=i)
    write(root / "cat" / "loud.flac", 44_100, 44_100, 2, samples=(3 * wave(44_100, 44_100, 2)).clip(-1, 1))
    write(root / "cat" / "quiet.wav", samples=np.zeros(8_000, np.float32))
    write(root / "cat" / "beyond.wav", samples=2 * wave(4_000), subtype="FLOAT")
    write(root / "cat" / "blip.wav", 800)
    shutil.copy(root / "dog" / "1.wav", root / "cat" / "again.wav")
    write(root / "cat" / "nan.wav", samples=np.float32([np.nan] * 900), subtype="FLOAT")
    (root / "cat" / "empty.ogg").write_bytes(b"")
    report = report_on(root)
    assert report.sounds == 8
    assert {s.name: s.reason for s in report.unreadable} == {
        "cat/empty.ogg": "0 bytes",
        "cat/nan.wav": "900 of 900 values are NaN or infinite",
    }
    assert report.rates == {"16,000 Hz mono": 7, "44,100 Hz stereo": 1}
    assert report.formats == {"wav": 7, "flac": 1}
    assert (report.clipped, report.beyond, report.short) == (2, 1, 1)
    assert report.silent == ("cat/quiet.wav",)
    assert (report.lengths.shortest, report.lengths.longest) == (0.05, 3.0)
    assert report.lengths.total == pytest.approx(1 + 2 + 3 + 1 + 0.5 + 0.25 + 0.05 + 2)
    assert (report.duplicates.groups, report.duplicates.conflicts) == (1, 1)
    assert report.classes == {"cat": 5, "dog": 3}
    text = "\n".join(report.lines())
    assert max(map(len, report.lines())) <= 80
    for words in ("8 sounds, 9.80 s", "0.05 s to 3.00 s, median 1.00 s", "read as 16,000 Hz mono", "first: cat/again.wav = dog/1.wav"):
        assert words in text
    assert report.verdict().startswith("Usable, but 1 sound under different labels; 2 (25 %) unreadable")
    assert json.loads(json.dumps(report.to_json()))["silent"] == ["cat/quiet.wav"]


def test_good_sounds_have_nothing_against_them(tmp_path):
    for i in range(100):
        write(tmp_path / f"{i}.wav", 2_000, seed=i)
    assert report_on(tmp_path).verdict() == "Good to go."


def test_only_flat_tops_are_clipping():
    t = np.arange(16_000)[:, None] / 16_000
    sine = np.sin(2 * np.pi * 440 * t)
    assert not flat_tops(np.round(sine * 32_767).astype(np.float32) / 32_768)
    assert flat_tops((1.2 * sine).clip(-1, 1).astype(np.float32))
    assert flat_tops((1.2 * sine).astype(np.float32))  # of floats beyond full scale
    assert not flat_tops(np.zeros((100, 2), np.float32))
    assert not flat_tops(np.float32([[1], [1]]))
    assert flat_tops(np.float32([[0], [1], [1], [1]]))
