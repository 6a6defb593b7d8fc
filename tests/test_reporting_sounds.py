"""The report of a run on sounds: their pictures can be listened to, from clips inside the page."""

import base64
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
from sound_files import wave, write
from test_reporting import EVIL_NAME, Page, log, record

from byol import exporting, reporting
from byol import run as runs
from byol.config import Request
from byol.data import Source, Unreadable, open_source
from byol.reporting import clips
from byol.reporting.clips import Clips, encoded, loudest
from byol.reporting.look import look, sample
from byol.reporting.run import read_all

EVIL = EVIL_NAME.replace(".png", ".wav")


def samples_of(uri):
    head, _, text = uri.partition(";base64,")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(text)), dtype="float32")
    return head, samples, rate


def alike(one, two):
    """The largest correlation over shifts of a few ms: a coder may move a sound a little."""
    return max(np.corrcoef(one[40:-40], np.roll(two, k)[40:-40])[0, 1] for k in range(-32, 33))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run on 30 sounds of two classes, one of them of a name that tries to be code, as training leaves it."""
    root = tmp_path_factory.mktemp("sounds")
    for n in range(30):
        name = EVIL if n == 4 else f"{n:02}.wav"
        samples = wave(4_000 + 700 * n, seed=n) * (1 if n % 2 else 0.5)
        write(root / "tones" / ("odd" if n % 2 else "even") / name, samples=samples)
    settings = ("encoder=audio-small-c4-d16", "hidden=32", "dim=16", "memory=12", "seconds=0.2")
    session = runs.prepare(Request(data=str(root / "tones"), epochs=2, batch_size=8, precision="fp32", device="cpu", set=settings))
    runs.create(session, root / "run")
    exporting.save_encoder(runs.encoder_of(session.method()), root / "run" / "encoder.safetensors", extra={})
    log(root / "run", [record(1, 3.0), record(2, 2.0)])
    return root


def written(root, *more):
    reporting.write([root / "run", *more], root / "report.html")
    return Page((root / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(made):
    return written(made)


def test_every_picture_that_can_be_heard_has_the_clip_of_its_own_sound(made, page):
    source = open_source(made / "tones")
    of = {f"{name} ({name.split('/')[0]})": i for i, name in enumerate(source.names)}
    uris = {a["data-clip"]: a["src"] for t, a in page.tags if t == "audio"}
    pictures = [(t, a) for t, a in page.tags if "data-hear" in a]
    assert {a["data-hear"] for _, a in pictures} == set(uris)
    assert {t for t, _ in pictures} == {"i", "img"}
    assert all(a["data-hear"] == str(of[a["title"]]) for t, a in pictures if t == "i")
    for place, uri in uris.items():
        head, heard, rate = samples_of(uri)
        expected = loudest(source, int(place))
        assert (head, rate, len(heard)) == ("data:audio/mpeg", 16_000, len(expected))
        assert alike(heard, expected) > 0.9


def test_all_that_are_shown_on_the_map_can_be_heard(page):
    framed = [a for t, a in page.tags if t == "i" and "framed" in a["class"]]
    assert framed
    assert all("data-hear" in a for a in framed)
    assert [a["role"] for _, a in page.tags if a.get("class", "").startswith("map")] == ["group"]


def test_the_page_says_what_can_be_heard_and_how_large_it_is(page):
    uris = [a["src"] for t, a in page.tags if t == "audio"]
    size = sum(map(len, uris)) / 1e6
    assert (
        f"{len(uris)} sounds can be heard, of each at most 1 s, the loudest of its first 10 s, as MP3, {size:.1f} MB of this page."
        in page.said
    )
    assert "A click on a picture plays its sound" in page.said
    assert "What sounds alike to the network" in page.said
    assert "PCA" in page.said  # how the map was made


def test_without_a_script_there_is_a_player_for_each_in_a_list(page):
    players = [a for t, a in page.tags if t == "audio"]
    assert all("controls" in a and a["preload"] == "none" for a in players)
    assert sum(t == "li" for t, _ in page.tags) >= len(players)
    assert f"even/{EVIL} (even)" in [a["aria-label"] for a in players]


def test_nothing_is_loaded_from_elsewhere_and_no_name_becomes_code(page):
    assert all(v.startswith(("data:image/", "data:audio/mpeg;base64,")) for v in page.attributes("src"))
    assert sum(t == "script" for t, _ in page.tags) == 1
    assert not [k for _, a in page.tags for k in a if k.startswith("on")]
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-")
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"base64,[\w+/=]*", "", page.text.replace("http://www.w3.org/2000/svg", ""))) == []


def test_the_same_run_gives_the_same_page(made, page):
    assert written(made).text == page.text


def test_two_runs_on_a_page_have_their_clips_apart(made, monkeypatch):
    monkeypatch.setattr(reporting, "MANY", reporting.Extent(8, 2))
    shutil.copytree(made / "run", made / "again", dirs_exist_ok=True)
    both = written(made, made / "again")
    places = [a["data-clip"] for t, a in both.tags if t == "audio"]
    assert len(places) == 2 * len(set(places)) == 16  # a picture looks for its clip in its own article


def test_clips_end_where_there_is_no_more_room(made):
    source = open_source(made / "tones")
    hear = Clips(source, 40_000)
    places = [hear(i) for i in range(30)]
    count = sum(p is not None for p in places)
    assert places == [*range(count), *[None] * (30 - count)]
    assert 3 < count < 30
    assert sum(len(encoded(loudest(source, i), 16_000)) for i in range(count)) <= 40_000
    assert hear(0) == hear.has(0) == 0  # what there is stays
    assert hear.has(29) is None


def test_a_sound_that_cannot_be_read_has_no_clip(tmp_path):
    for n in range(3):
        write(tmp_path / "s" / f"{n}.wav", seed=n)
    source = open_source(tmp_path / "s")
    (tmp_path / "s" / "1.wav").unlink()
    hear = Clips(source, 1_000_000)
    assert [hear(i) for i in range(3)] == [0, None, 2]


def test_a_sound_that_is_shown_but_breaks_off_later_leaves_only_its_own_features_out(made, monkeypatch):
    (run,) = read_all([made / "run"])
    window = Source.window

    def damaged(source, index, start, frames):
        if source.names[index] == "odd/07.wav" and frames > 8_900:  # its own length, at which it is shown
            raise Unreadable("breaks off")
        return window(source, index, start, frames)

    monkeypatch.setattr(Source, "window", damaged)
    shown = sample(run, 30, lambda *now: None)
    found = look(run, shown, lambda *now: None)
    kept = [n for n, name in enumerate(shown.source.names) if name != "odd/07.wav"]
    assert len(kept) == len(found.trained) == len(found.sample.pictures) == 29
    assert list(found.sample.source.names) == [shown.source.names[n] for n in kept]
    assert found.sample.ids == [shown.ids[n] for n in kept]
    assert all((found.sample.pictures[new] == shown.pictures[old]).all() for new, old in enumerate(kept))
    assert all((found.sample.whole[new] == shown.whole[kept[new]]).all() for new in found.sample.whole)


def test_pictures_of_images_have_nothing_to_hear():
    source = open_source((np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1]))
    hear = Clips(source, 1_000_000)
    assert [hear(0), len(hear), hear.said(), hear.listed({})] == [None, 0, "", ""]


def test_the_clip_is_the_loudest_second_of_the_first_ten(tmp_path):
    quiet = 0.01 * wave(16_000 * 14)
    quiet[16_000 * 7 : 16_000 * 8] *= 30
    quiet[16_000 * 12 : 16_000 * 13] *= 90
    write(tmp_path / "s" / "long.wav", samples=quiet)
    write(tmp_path / "s" / "silent.wav", samples=np.zeros((40_000, 1), np.float32))
    source = open_source(tmp_path / "s")
    np.testing.assert_allclose(loudest(source, 0), quiet[16_000 * 7 : 16_000 * 8, 0], atol=1e-4)
    assert loudest(source, 1).tolist() == [0.0] * 16_000


@pytest.mark.parametrize("rate", [8_000, 16_000, 16_001])
@pytest.mark.parametrize("mp3", [True, False])
@pytest.mark.parametrize("frames", [1, 50, 4_000])
def test_any_sound_can_be_put_into_the_page(rate, mp3, frames, monkeypatch):
    if not mp3:
        monkeypatch.setattr(soundfile, "available_formats", dict)
    sound = wave(frames, rate)[:, 0]
    head, heard, found = samples_of(encoded(sound, rate))
    assert head == ("data:audio/mpeg" if mp3 and rate in clips._MP3_RATES else "data:audio/wav")
    assert (found, len(heard)) == (rate, frames)
    if head == "data:audio/wav":
        np.testing.assert_allclose(heard, sound, atol=2 / 32767)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_in_a_browser_each_of_them_is_a_button_and_two_are_tab_stops(made, page, tmp_path):
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=2000"]
    words += [f"file://{made / 'report.html'}", f"--user-data-dir={tmp_path}/profile"]
    reporting.write([made / "run"], made / "report.html")
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode or "<html" not in done.stdout:
        pytest.skip("the browser does not start here")
    seen = Page(re.sub(r"<script>.*?</script>", "", done.stdout, flags=re.DOTALL))
    buttons = [a for _, a in seen.tags if a.get("role") == "button"]
    assert len(buttons) == sum("data-hear" in a for _, a in page.tags)
    assert sorted(a["tabindex"] for a in buttons)[-2:] == ["0", "0"]
    assert sum(a["tabindex"] == "0" for a in buttons) == 2
