"""Features over time: those of HEAR's interface, which sees a sound whole, though a long one is heard in stretches."""

import importlib
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from sound_files import wave, write
from test_dist import free_port
from together import start

import byol
from byol import embeddings, hear, over_time
from byol.cli import main
from byol.data import Unreadable, open_source
from byol.encoders import Input, SoundInput, load, save_weights
from byol.evaluation.baselines import mfcc, raw
from byol.evaluation.features import extract
from byol.modalities import sounds as modality

CPU = torch.device("cpu")
HEARD = SoundInput(mean=-5.0, std=4.5)
TINY = "audio-small-c4-d8"
FEATURES = importlib.import_module("byol.evaluation.features")  # whose name in the package is that of its function


def encoder(name=TINY, **changes):
    return load(name, input=SoundInput(**{"mean": -5.0, "std": 4.5} | changes), seed=1).eval()


def as_hear(network, path):
    """Embeddings and times of a file by HEAR's interface, of all of it at once."""
    waves, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == network.input.rate
    embedded, times = hear.get_timestamp_embeddings(torch.from_numpy(waves.mean(1))[None], hear.HearModel(network))
    return embedded[0].numpy(), times[0].numpy()


def heard(network, folder, hop=40, index=0):
    parts = list(over_time.along(network, open_source(folder), index, hop, device=CPU))
    return np.concatenate([y for _, y in parts]), np.concatenate([t for t, _ in parts]), len(parts)


def table(path):
    found = pq.read_table(path)
    return {name: found[name].to_pylist() for name in found.column_names}


@pytest.fixture
def sounds(tmp_path):
    """Five sounds in two classes, one of them shorter than the unit of training and one stereo."""
    for n, frames in enumerate((1600, 16_000, 20_123, 40_960, 640)):
        write(tmp_path / "sounds" / ("high" if n % 2 else "low") / f"{n}.wav", frames=frames, channels=1 + (n == 2), seed=n)
    return tmp_path / "sounds"


@pytest.mark.parametrize(("name", "changes"), [(TINY, {}), ("byol-a-v2", {"bands": 16})])
@pytest.mark.parametrize("seconds", [1, 4])
def test_a_sound_in_stretches_is_what_it_is_as_a_whole(name, changes, seconds, tmp_path, monkeypatch):
    network = encoder(name, **changes)
    path = write(tmp_path / "s" / "1.wav", frames=161_234)
    expected, times = as_hear(network, path)
    monkeypatch.setattr(over_time, "STRETCH", seconds)
    embedded, at, parts = heard(network, tmp_path / "s")
    assert parts == 10 // seconds
    np.testing.assert_array_equal(at, times)
    np.testing.assert_allclose(embedded, expected, rtol=1e-4, atol=2e-5)


def test_stretches_end_where_a_frame_or_a_moment_is_whatever_the_length(tmp_path, monkeypatch):
    monkeypatch.setattr(over_time, "STRETCH", 1)
    network = encoder()
    for n, frames in enumerate((15_199, 15_200, 16_000, 31_999, 32_000, 32_001, 32_641, 33_280)):
        expected, times = as_hear(network, write(tmp_path / str(n) / "1.wav", frames=frames))
        embedded, at, _ = heard(network, tmp_path / str(n))
        np.testing.assert_array_equal(at, times)
        np.testing.assert_allclose(embedded, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("hop", [1, 7, 80, 2500, 60_000])
def test_a_hop_of_any_length_finds_at_each_moment_what_a_hop_of_one_does(hop, tmp_path, monkeypatch):
    monkeypatch.setattr(over_time, "STRETCH", 1)
    monkeypatch.setattr(over_time, "_ROWS", 8 * 100)
    write(tmp_path / "s" / "1.wav", frames=50_000)
    every, _, _ = heard(encoder(), tmp_path / "s", hop=1)
    embedded, at, _ = heard(encoder(), tmp_path / "s", hop=hop)
    assert at.tolist() == list(range(0, 3126, hop))
    np.testing.assert_allclose(embedded, every[::hop], rtol=1e-5, atol=1e-6)


def test_another_rate_is_resampled_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(over_time, "STRETCH", 2)
    low = write(tmp_path / "low" / "1.wav", frames=60_000, rate=8000)
    network = encoder()
    waves, rate = soundfile.read(low, dtype="float32")
    whole = network.preprocess(waves, rate=rate)
    with torch.no_grad():
        y = network.net.frames(whole)
    embedded, at, _ = heard(network, tmp_path / "low", hop=80)
    assert at[-1] == 7440
    places = (torch.from_numpy(at).double() / 10 - 3.5) / 8
    np.testing.assert_allclose(embedded, over_time.interpolated(y, places)[0].numpy(), rtol=1e-3, atol=1e-3)


def test_a_long_sound_is_never_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(over_time, "STRETCH", 2)
    monkeypatch.setattr("byol.data.sound_reader.CACHE", 0)
    write(tmp_path / "s" / "1.wav", frames=400_000)
    source, most = open_source(tmp_path / "s"), []
    window = source.window
    object.__setattr__(source, "window", lambda index, start, frames: most.append(frames) or window(index, start, frames))
    assert len(list(over_time.along(encoder(), source, 0, 40, device=CPU))) == 12
    assert max(most) < 4.2 * 16_000


def networks(**changes):
    """A network of each shape, and both baselines that count a spectrogram over time."""
    input = SoundInput(mean=-5.0, std=4.5, **changes)
    return [encoder(**changes), encoder("byol-a-v2", bands=16, **changes), raw(input), mfcc(input)]


def test_one_feature_of_three_minutes_is_that_of_the_whole(tmp_path):
    path = write(tmp_path / "s" / "1.wav", frames=180 * 16_000 + 1234)
    every = [encoder(), mfcc(HEARD)]
    with torch.no_grad():
        whole = [network(network.preprocess(path))[0].numpy() for network in every]
    for found, expected in zip(extract(every, open_source(tmp_path / "s")), whole, strict=True):
        np.testing.assert_allclose(found.x[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_long_sounds_are_as_at_once_and_silence_follows_the_shorter(rate, tmp_path, monkeypatch):
    for n, frames in enumerate((20_000, 64_123, 150_000)):  # those with 64,123 are cut too: the mean is heard
        write(tmp_path / "s" / f"{n}.wav", frames=frames, seed=n)
    every, source = networks(rate=rate), open_source(tmp_path / "s")
    whole = extract(every, source)
    monkeypatch.setattr(FEATURES, "LONG", 2)
    monkeypatch.setattr(over_time, "STRETCH", 1)
    monkeypatch.setattr(FEATURES, "hear", None)  # nothing goes through at once
    done = []
    for found, expected in zip(extract(every, source, progress=lambda *now: done.append(now)), whole, strict=True):
        np.testing.assert_allclose(found.x, expected.x, rtol=1e-4, atol=1e-5)
    assert done[0] == ("Seconds of sound", 0, 4 * 3 * 5)
    assert done[-1] == ("Seconds of sound", 60, 60)
    assert done == sorted(done)


def test_of_a_long_sound_no_more_than_two_stretches_are_read_at_once_and_what_breaks_off_has_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(FEATURES, "LONG", 2)
    monkeypatch.setattr(over_time, "STRETCH", 2)
    for n in range(3):
        write(tmp_path / "s" / f"{n}.wav", frames=400_000, seed=n)
    source, most = open_source(tmp_path / "s"), []
    window = source.window

    def read(index, start, frames):
        most.append(frames)
        if index == 1 and start > 100_000:
            raise Unreadable("breaks off")
        return window(index, start, frames)

    object.__setattr__(source, "window", read)
    first, second = extract([encoder(), raw(SoundInput(mean=0.0, std=1.0))], source)
    assert max(most) < 4.2 * 16_000
    assert first.kept.tolist() == second.kept.tolist() == [0, 2]
    assert [(s.name, s.reason) for s in first.skipped] == [("1.wav", "breaks off")]
    assert (first.x[0] != first.x[1]).any()


def test_a_network_without_frames_refuses_what_memory_has_no_room_for(tmp_path, monkeypatch):
    write(tmp_path / "s" / "1.wav", frames=24_000, rate=100)
    write(tmp_path / "s" / "2.wav", frames=72_000, rate=100)
    source = open_source(tmp_path / "s")
    monkeypatch.setattr(FEATURES, "memory_limit", lambda: 1 << 28)
    sentence = "2.wav is 12 minutes long, and resnet18 hears 8 minutes of every sound at once, for which there is too little memory; cut "
    with pytest.raises(ValueError, match=sentence):
        extract([encoder(), load("resnet18", input=HEARD)], source)


def test_a_picture_takes_ten_seconds_of_a_sound_and_its_views_are_of_all_of_it(tmp_path):
    write(tmp_path / "s" / "1.wav", frames=30 * 16_000)
    source = open_source(tmp_path / "s")
    shown = modality.sample(source, 0)
    assert shown.shape == (1, 160_000, 1)
    np.testing.assert_array_equal(shown, source.read(0)[:, :160_000])
    plan = modality.plan("byol-a-v1", source, 96, takes=None, compiled=None, changes={})
    heard = []
    source_window = source.window
    object.__setattr__(source, "window", lambda index, start, frames: heard.append(start) or source_window(index, start, frames))
    for epoch in range(12):
        modality.seen(plan, source, [shown], torch.tensor([0]), 0, epoch, HEARD)
    assert heard == [int(plan.windows(torch.tensor([480_000]), torch.tensor([0]), 0, epoch)) for epoch in range(12)]
    assert max(heard) > 160_000


def test_embed_writes_a_row_for_every_moment_of_every_sound(sounds, tmp_path, capsys):
    network = encoder()
    save_weights(network, tmp_path / "e.safetensors", extra={})
    out = tmp_path / "e.parquet"
    assert main(["embed", str(tmp_path / "e.safetensors"), str(sounds), "--hop", "40", "--out", str(out), "--json"]) == 0
    said = capsys.readouterr().out.splitlines()
    told, found = json.loads(said[-1]), table(out)
    assert list(found) == ["name", "label", "time_ms", "embedding"]
    assert (told["images"], told["vectors"], told["skipped"]) == (5, len(found["name"]), [])
    names = open_source(sounds).names
    assert list(dict.fromkeys(found["name"])) == list(names)
    for name in names:
        rows = [i for i, n in enumerate(found["name"]) if n == name]
        expected, times = as_hear(network, sounds / name)
        assert {found["label"][i] for i in rows} == {name.split("/")[0]}
        assert [found["time_ms"][i] for i in rows] == times.tolist()
        np.testing.assert_allclose([found["embedding"][i] for i in rows], expected, rtol=1e-4, atol=2e-5)


def test_the_screen_says_how_many_moments(sounds, tmp_path, capsys):
    save_weights(encoder(), tmp_path / "e.safetensors", extra={})
    out = str(tmp_path / "e.parquet")
    assert main(["embed", str(tmp_path / "e.safetensors"), str(sounds), "--hop", "100", "--out", out]) == 0
    assert f"{out}: 53 vectors of 5 sounds, one every 100 ms\n" in capsys.readouterr().out


def test_rows_are_written_in_groups_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "GROUP", 1000)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 50, 4)).astype(np.float32)
    with embeddings.timed_rows(tmp_path / "x.parquet", 4, labelled=False) as rows:
        for n, y in enumerate(x):
            rows.add(f"{n}\udcff", None, np.arange(50) * 3, y)
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups == 4
    found = table(tmp_path / "x.parquet")
    assert found["name"][::50] == [f"{n}\\udcff" for n in range(7)]
    assert found["time_ms"] == [3 * k for k in range(50)] * 7
    np.testing.assert_array_equal(np.array(found["embedding"], np.float32), x.reshape(350, 4))


def test_what_fails_on_the_way_leaves_the_old_file(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"old")

    def half():
        with embeddings.timed_rows(tmp_path / "x.parquet", 4, labelled=True) as rows:
            rows.add("a", "b", np.arange(3), np.zeros((3, 4), np.float32))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert [p.name for p in tmp_path.iterdir()] == ["x.parquet"]
    assert (tmp_path / "x.parquet").read_bytes() == b"old"


def test_a_sound_that_cannot_be_read_is_listed_and_one_that_breaks_off_says_where(sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(over_time, "STRETCH", 1)
    monkeypatch.setattr("byol.data.sound_reader.CACHE", 0)
    (sounds / "low" / "torn.wav").write_bytes(b"RIFF")
    values = wave(64_000)
    values[50_000] = np.nan
    write(sounds / "low" / "odd.wav", samples=values, subtype="FLOAT")
    done = byol.embed(encoder(), sounds, tmp_path / "e.parquet", hop=40, device="cpu")
    reasons = {s.name: s.reason for s in done.skipped}
    assert list(reasons) == ["low/torn.wav", "low/odd.wav"]
    assert "NaN" in reasons["low/odd.wav"]
    found = table(tmp_path / "e.parquet")
    last = max(t for n, t in zip(found["name"], found["time_ms"], strict=True) if n == "low/odd.wav")
    assert f"only what is before {last + 40:,} ms is in e.parquet" in reasons["low/odd.wav"]
    assert "low/torn.wav" not in found["name"]
    assert (done.images, done.vectors) == (5, len(found["name"]) - len([n for n in found["name"] if n == "low/odd.wav"]) + last // 40 + 1)


def test_half_precision_is_near(sounds, tmp_path):
    for precision in ("fp32", "bf16"):
        byol.embed(encoder(), sounds, tmp_path / f"{precision}.parquet", hop=100, device="cpu", precision=precision)
    full, half = (np.array(table(tmp_path / f"{p}.parquet")["embedding"]) for p in ("fp32", "bf16"))
    assert 0 < np.abs(full - half).max() < 0.05 * np.abs(full).max()


def test_several_processes_write_a_part_each(sounds, tmp_path):
    save_weights(encoder(), tmp_path / "e.safetensors", extra={})
    words = ["-m", "byol", "embed", tmp_path / "e.safetensors", sounds, "--hop", "40", "--device", "cpu", "--out", tmp_path / "two.parquet"]
    assert [p.wait(240) for p in start(2, words, port=free_port())] == [0, 0]
    byol.embed(tmp_path / "e.safetensors", sounds, tmp_path / "one.parquet", hop=40, device="cpu")
    two, one = table(tmp_path / "two.parquet"), table(tmp_path / "one.parquet")
    assert len(os.listdir(tmp_path / "two.parquet")) == 2
    assert [two[c] for c in ("name", "label", "time_ms")] == [one[c] for c in ("name", "label", "time_ms")]
    np.testing.assert_allclose(two["embedding"], one["embedding"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "asked", "sentence"),
    [
        (TINY, {"out": "e.npz"}, r"e\.npz: with a hop every sound has many rows.*give FILE\.parquet"),
        (TINY, {"out": "e.csv"}, r"ending '\.csv'"),
        (TINY, {"hop": 0}, "a hop of 0 ms is not possible; give a whole number of milliseconds, 1 or more"),
        (TINY, {"hop": 12.5}, "a hop of 12.5 ms is not possible"),
        (TINY, {"batch_size": 8}, "batch_size is 8, and with a hop sounds go through the network one by one; leave it out"),
        ("small-w1-n2", {}, "small-w1-n2 gives no features over time; give an encoder of sound, such as byol-a-v2"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_no_file(name, asked, sentence, sounds, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        byol.embed(load(name, input=HEARD), sounds, tmp_path / asked.pop("out", "e.parquet"), **{"hop": 40} | asked)
    assert os.listdir(tmp_path) == ["sounds"]


def test_images_have_no_hop(tmp_path):
    network = load("small-w1-n2", input=Input(channels=1, size=8, mean=(0.5,), std=(0.5,)))
    with pytest.raises(ValueError, match="digits has images, and only sounds have a hop; leave it out"):
        byol.embed(network, "digits", tmp_path / "e.parquet", hop=40)


def test_data_of_which_nothing_can_be_read_make_no_file(tmp_path):
    values = wave(8000)
    values[100] = np.inf
    write(tmp_path / "s" / "1.wav", samples=values, subtype="FLOAT")
    with pytest.raises(ValueError, match="none of its 1 sounds can be read; run `byol doctor` on it"):
        byol.embed(encoder(), tmp_path / "s", tmp_path / "e.parquet", hop=40)
    assert os.listdir(tmp_path) == ["s"]
