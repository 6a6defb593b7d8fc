"""Files that cannot be read for a while: what is waited for, for how long, and that a run goes on."""

import errno
import json
import pickle
import threading
import time

import numpy as np
import pytest
from cli_calls import TINY, TINY_SET, stripes
from cli_calls import byol as command
from data_files import folder

from byol.data import HostBatches, Unreadable, encoded, open_source, patience
from byol.data.patience import ALONE, TOTAL, TRIES, Patience
from byol.views import load as views


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self):
        self.now, self.pauses = 0.0, []

    def sleep(self, seconds):
        assert seconds > 0
        self.pauses.append(seconds)
        self.now += seconds

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def waiting(tmp_path, clock):
    return Patience(str(tmp_path), clock.sleep, clock)


def failing(error, times, result="bytes"):
    """Work that fails so many times."""
    calls = []

    def work():
        calls.append(1)
        if len(calls) <= times:
            raise error
        return result

    work.calls = calls
    return work


EIO = OSError(errno.EIO, "Input/output error")
STALE = OSError(errno.ESTALE, "Stale file handle")
GONE = FileNotFoundError(errno.ENOENT, "No such file or directory")


@pytest.mark.parametrize("error", [EIO, STALE, OSError(errno.ETIMEDOUT, "Connection timed out"), OSError(errno.ENETDOWN, "down")])
def test_what_may_pass_is_tried_again_with_growing_pauses(waiting, clock, error):
    work = failing(error, 6)
    assert waiting.read("a", "/nowhere/a", work) == "bytes"
    assert clock.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    (late,) = waiting.waited()
    assert (late.name, late.reason) == ("a", error.strerror.lower())
    assert late.seconds == pytest.approx(6.3)
    assert waiting.waited() == []


@pytest.mark.parametrize(
    "error", [GONE, PermissionError(errno.EACCES, "no"), IsADirectoryError(errno.EISDIR, "a folder"), Unreadable("damaged")]
)
def test_what_will_not_pass_is_not_waited_for(waiting, clock, error):
    with pytest.raises(type(error)):
        waiting.read("a", "/nowhere/a", failing(error, 1))
    assert clock.pauses == []


def test_a_folder_that_is_away_is_waited_for_once_and_not_for_every_sample(tmp_path, clock):
    waiting = Patience(str(tmp_path / "photos"), clock.sleep, clock)
    for name in map(str, range(1000)):
        with pytest.raises(FileNotFoundError):
            waiting.read(name, f"{tmp_path}/photos/{name}", failing(GONE, 10**6))
    assert clock.now == pytest.approx(TOTAL)
    assert max(clock.pauses) <= 8
    # Once it is back, the next time away is waited for anew.
    assert waiting.read("a", str(tmp_path), failing(GONE, 0)) == "bytes"
    assert waiting.read("b", str(tmp_path), failing(STALE, 3)) == "bytes"


def test_threads_share_the_time_that_a_folder_is_away(tmp_path):
    before = time.monotonic()
    waiting = Patience(str(tmp_path / "photos"), lambda s: time.sleep(s / 100), lambda: before + 100 * (time.monotonic() - before))
    ended = []

    def one(name):
        with pytest.raises(OSError, match="No such file"):
            waiting.read(name, f"{tmp_path}/photos/{name}", failing(GONE, 10**6))
        ended.append(name)

    threads = [threading.Thread(target=one, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ended) == 8


def test_an_unmounted_folder_that_is_an_empty_one_now_is_waited_for(tmp_path, waiting, clock):
    good = tmp_path / "good"
    good.write_bytes(b"x")
    waiting.read("good", str(good), failing(GONE, 0))
    with pytest.raises(FileNotFoundError):  # a deleted file, the others are there
        waiting.read("a", str(tmp_path / "a"), failing(GONE, 1))
    assert clock.now == 0
    good.unlink()
    assert waiting.read("a", str(tmp_path / "a"), failing(GONE, 4)) == "bytes"
    assert clock.now == pytest.approx(1.5)


def test_one_bad_file_among_good_ones_is_waited_for_shortly_and_once(tmp_path, waiting, clock):
    good = tmp_path / "good"
    good.write_bytes(b"x")
    for _ in range(3):
        waiting.read("good", str(good), failing(EIO, 0))
        with pytest.raises(OSError, match="Input/output"):
            waiting.read("bad", str(tmp_path / "bad"), failing(EIO, 10**6))
    assert clock.now == pytest.approx(ALONE)
    for i in range(500):  # a disk with many bad places
        waiting.read("good", str(good), failing(EIO, 0))
        with pytest.raises(OSError, match="Input/output"):
            waiting.read(f"bad{i}", str(tmp_path / "bad"), failing(EIO, 10**6))
    assert clock.now <= ALONE * TRIES + 500 * 0.11
    waiting.read("good", str(good), failing(EIO, 0))
    before = clock.now
    for i in range(10_000):  # all of it
        with pytest.raises(OSError, match="Input/output"):
            waiting.read(f"worse{i}", str(tmp_path / "bad"), failing(EIO, 10**6))
    assert clock.now - before <= TRIES * 0.11


def test_patience_goes_to_another_process_as_a_new_one(tmp_path):
    source = open_source(folder(tmp_path, ["a.png", "b.png"]))
    twin = pickle.loads(pickle.dumps(source.reader))
    assert twin.patience.folder == source.reader.patience.folder
    np.testing.assert_array_equal(twin.read(0), source.read(0))


@pytest.fixture
def flaky(tmp_path, monkeypatch):
    """A folder whose third file cannot be read the first two times."""
    root = folder(tmp_path / "photos", [f"{i}.png" for i in range(8)], size=(12, 16))
    source = open_source(root)
    real, left = encoded.Files.load, {"2.png": 2}

    def load(self, index):
        name = self.names[index]
        if left.get(name, 0):
            left[name] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return real(self, index)

    monkeypatch.setattr(encoded.Files, "load", load)
    monkeypatch.setattr(source.reader.patience, "_sleep", lambda seconds: None)
    return source, left


def test_a_hiccup_changes_no_batch_and_is_counted(flaky):
    source, left = flaky
    plan = views("crop", size=8, channels=3)
    first = HostBatches(source, plan, n=8, batch=8, seed=0)[0]
    assert left["2.png"] == 0
    assert first.bad == []
    assert [(w.name, w.reason) for w in first.waited] == [("2.png", "input/output error")]
    again = HostBatches(source, plan, n=8, batch=8, seed=0)[0]
    assert again.waited == []
    assert (again.ids == first.ids).all()
    assert (again.crops == first.crops).all()


def test_a_damaged_file_is_not_tried_again(flaky, tmp_path):
    source, left = flaky
    left.clear()
    (tmp_path / "photos" / "3.png").write_bytes(b"<html>")
    began = time.monotonic()
    with pytest.raises(Unreadable, match="not an image"):
        source.read(3)
    assert source.waited() == []
    assert time.monotonic() - began < 60


def test_a_header_that_cannot_be_read_at_once_is_not_lost(tmp_path, monkeypatch):
    root = folder(tmp_path / "photos", ["0.png", "1.png"])
    real, left = encoded.Files.open, [3]

    def opened(self, index):
        if index == 1 and left[0]:
            left[0] -= 1
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(self, index)

    monkeypatch.setattr(encoded.Files, "open", opened)
    monkeypatch.setattr(patience, "_FIRST", 0.001)
    assert open_source(root).names == ["0.png", "1.png"]


def test_a_stale_zip_is_opened_again(tmp_path, monkeypatch):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.png", (folder(tmp_path / "p", [f"{i}.png"]) / f"{i}.png").read_bytes())
    source = open_source(tmp_path / "a.zip")
    monkeypatch.setattr(source.reader.patience, "_sleep", lambda seconds: None)
    first = source.read(0)
    handle = source.reader.blobs._file

    def stale(*_):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(handle.fp, "read", stale, raising=False) if not hasattr(handle.fp, "raw") else handle.fp.close()
    handle.read = stale
    np.testing.assert_array_equal(source.read(0), first)
    assert source.reader.blobs._file is not handle
    assert [w.name for w in source.waited()] == ["0.png"]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_goes_on_when_its_folder_is_away_for_a_second(tmp_path, workers):
    photos, out = stripes(tmp_path / "photos", 48, sizes=(16, 20)), tmp_path / "run"
    lines = out / "metrics.jsonl"
    stop = threading.Event()

    def away():
        while not (lines.exists() and lines.read_text().count("\n") >= 1):
            if stop.wait(0.01):
                return
        photos.rename(tmp_path / "elsewhere")
        time.sleep(1)
        (tmp_path / "elsewhere").rename(photos)

    thread = threading.Thread(target=away)
    thread.start()
    words = [w if w != "0" else workers for w in TINY]
    try:
        call = command("train", photos, "--out", out, "--epochs", "20", "--seed", "1", *words, *TINY_SET)
    finally:
        stop.set()
        thread.join()
    assert call.code == 0, call.err
    about = json.loads((out / "data.json").read_text())
    assert about["skipped"] == []
    assert about["waited"]["reads"] >= 1
    assert about["waited"]["longest_seconds"] >= 0.1
    assert any(line.strip().startswith("waited ") for line in call.lines)
