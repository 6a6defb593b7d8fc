"""Sounds by the ordinary commands: made ones, tones of three pitches in noise, with their class as their folder."""

import json
import os
import signal

import numpy as np
import pytest
import scipy.fft
import torch
from sound_files import CLASSES, SMALL, tone, tones, write
from test_dist import free_port
from together import start

import byol
from byol import checkpoint, run
from byol.cli import main
from byol.config import Request
from byol.data import open_source, sound_reader
from byol.encoders import SoundInput
from byol.evaluation.baselines import mfcc
from byol.logmel import FrontEnd, LogMel
from byol.views import SoundViews


@pytest.fixture
def sounds(tmp_path):
    return tones(tmp_path / "tones")


def train(data, out, **asked):
    return byol.train(data, out, **{"epochs": 3, "batch_size": 8, "set": SMALL} | asked)


class Stop:
    def step(self, done):
        if done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    def log(self, record): ...
    def note(self, text): ...


def weights(path):
    return run.restored(path).state_dict()


def logged(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def losses(path):
    return [r["loss"] for r in logged(path)]


def same(one, two):
    return all(torch.equal(one[key], two[key]) for key in one) and one.keys() == two.keys()


def test_a_folder_of_sounds_is_known_by_itself_and_at_its_own_rate(sounds, tmp_path):
    source = open_source(sounds)
    assert (source.modality, len(source), source.rate, source.classes) == ("sound", 36, 16_000, ["high", "low", "middle"])
    for n in range(3):
        write(tmp_path / "telephone" / f"{n}.wav", frames=800, rate=8000)
    low = open_source(tmp_path / "telephone")
    assert (low.rate, low.headers.width.tolist()) == (8000, [800] * 3)
    write(tmp_path / "telephone" / "3.wav", frames=800, rate=11_025)
    assert open_source(tmp_path / "telephone").rate == 16_000


def test_a_front_end_at_another_rate_has_the_same_windows_in_time():
    assert FrontEnd.at(16_000) == FrontEnd()
    low = FrontEnd.at(8000)
    assert (low.window / 8000, low.hop / 8000, low.f_max / 4000) == (0.064, 0.01, 0.975)


def test_statistics_are_those_of_one_window_of_every_sound(sounds):
    session = run.prepare(Request(data=str(sounds), batch_size=8, set=SMALL))
    assert isinstance(session.input, SoundInput)
    plan, source = SoundViews("x", [session.views.pipeline.__class__()]), open_source(sounds)
    starts = plan.windows(torch.from_numpy(source.headers.width.astype(np.int64)), torch.arange(36), 0, 0)
    waves = np.stack([source.window(i, int(s), plan.samples)[0, :, 0] for i, s in enumerate(starts)])
    x = LogMel()(torch.from_numpy(waves)).double()
    assert session.input.mean == pytest.approx(float(x.mean()), abs=1e-4)
    assert session.input.std == pytest.approx(float(x.std(correction=0)), abs=1e-4)


def test_a_window_is_as_long_as_the_sounds_are_on_average_and_at_most_the_paper_s(tmp_path):
    for name, frames in (("short", (4000, 5600)), ("long", (20_000, 40_000))):
        for n, length in enumerate(frames * 4):
            write(tmp_path / name / f"{n}.wav", frames=length)
    found = {name: run.prepare(Request(data=str(tmp_path / name), batch_size=4)) for name in ("short", "long")}
    assert {name: session.views.pipeline.seconds for name, session in found.items()} == {"short": 0.3, "long": 0.95}
    assert {name: session.input.frames for name, session in found.items()} == {"short": 31, "long": 96}


@pytest.mark.parametrize(
    ("pre", "more"),
    [("given", {}), ("running", {}), ("running", {"method": "myow", "set": (*SMALL, "view2.fader=1", "mined_hidden=16", "mined_dim=8")})],
)
def test_a_resumed_run_ends_in_the_weights_of_one_that_was_not_stopped(sounds, tmp_path, pre, more):
    """The bank and the running statistics are in the checkpoint; workers read the same as threads do."""
    asked = {"set": SMALL} | more
    asked["set"] += (f"pre={pre}",)
    train(sounds, tmp_path / "whole", **asked)
    assert train(sounds, tmp_path / "cut", watcher=Stop(), **asked).outcome.step == 5
    assert byol.resume(tmp_path / "cut").outcome.ended == "finished"
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    if pre == "given":
        train(sounds, tmp_path / "workers", workers=2, **asked)
        assert same(weights(tmp_path / "whole"), weights(tmp_path / "workers"))


def test_measuring_the_speed_leaves_the_run_as_it_would_be(sounds, tmp_path):
    train(sounds, tmp_path / "one", epochs=1)
    session = run.prepare(Request(data=str(sounds), batch_size=8, epochs=1, set=SMALL))
    run.speed_of(session)
    byol.api.begin(session, tmp_path / "two")
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_what_the_views_remember_is_in_the_checkpoint(sounds, tmp_path):
    train(sounds, tmp_path / "run", epochs=1)
    state, counts = checkpoint._read(tmp_path / "run" / checkpoint.LAST)
    assert counts.step == 4
    assert int(state["views/count"]) == 12
    assert int(state["views/pointer"]) == 4 * 2 * 8 % 12
    assert torch.isfinite(state["views/bank"]).all()


def test_two_processes_remember_and_learn_what_one_does(sounds, tmp_path):
    """Of the network's dropout, too, each draws its share of one batch. SGD, as AdamW scales up what is rounding alone."""
    asked = [*SMALL, "optimizer=sgd", "lr=0.1", "log_steps=1"]
    words = ["-m", "byol", "train", sounds, "--out", tmp_path / "two", "--epochs", "2", "--batch-size", "8", "--set", *asked]
    assert [p.wait(240) for p in start(2, words, port=free_port())] == [0, 0]
    train(sounds, tmp_path / "one", epochs=2, set=tuple(asked))
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-2)
    states = [checkpoint._read(tmp_path / name / checkpoint.LAST)[0] for name in ("one", "two")]
    for key in ("bank", "pointer", "count", "mean"):
        torch.testing.assert_close(states[1][f"views/{key}"], states[0][f"views/{key}"], rtol=1e-5, atol=1e-5)


def test_what_cannot_be_heard_is_left_out_of_a_run_and_listed_and_silence_is_a_sound(sounds, tmp_path, monkeypatch):
    """Also what was there when the run began, and what only decoding can tell."""
    whole = (sounds / "low" / "00.wav").read_bytes()
    bad = {
        "cut.wav": whole[: len(whole) // 2],
        "empty.wav": b"",
        "page.wav": b"<html>404 not found</html>" * 4,
        "odd.flac": b"fLaC" + bytes(90),
    }
    for name, content in bad.items():
        (sounds / "high" / name).write_bytes(content)
    write(sounds / "high" / "nan.wav", samples=np.full(4000, np.nan, np.float32), subtype="FLOAT")
    for n in range(3):
        write(sounds / "low" / f"silent{n}.wav", samples=np.zeros(4000, np.float32))
    gone = sounds / "low" / "33.wav"

    class Vanish:
        def step(self, done):
            gone.unlink(missing_ok=True)

        def log(self, record): ...
        def note(self, text): ...

    monkeypatch.setattr(sound_reader, "CACHE", 0)  # else it was read before it vanished
    done = train(sounds, tmp_path / "run", epochs=4, watcher=Vanish(), workers=0)
    assert done.outcome.ended == "finished"
    listed = {s["name"]: s["reason"] for s in run.read_json(tmp_path / "run" / "data.json")["skipped"]}
    assert set(listed) == {*(f"high/{name}" for name in bad), "high/nan.wav", "low/33.wav"}
    assert "NaN" in listed["high/nan.wav"]
    assert "missing" in listed["low/33.wav"]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["loss"]) and not row.get("left_out") for row in rows)
    assert rows[-1]["verdict"] in ("OK", "WARN")
    assert (tmp_path / "run" / "encoder.safetensors").exists()


def test_sounds_that_are_all_silent_are_refused_in_one_sentence(tmp_path):
    for n in range(12):
        write(tmp_path / "silent" / f"{n}.wav", samples=np.zeros(4000, np.float32))
    with pytest.raises(ValueError, match="all of 12 sounds are silent") as told:
        train(tmp_path / "silent", tmp_path / "run")
    assert "\n" not in str(told.value)


def test_from_a_folder_to_a_report(sounds, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, data = str(tmp_path / "run"), str(sounds)
    train(sounds, out, epochs=1)
    assert main(["evaluate", out, data, "--protocol", "knn", "sound-linear:repeats=2,epochs=5", "evar-linear:epochs=3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["evaluations"]
    assert [s["name"] for s in found[0]["scores"]] == ["log-mel", "mfcc", "random audio-small-c4-d16", out]
    assert found[0]["samples"] == "sounds"
    assert any("mean length of 0.25 s" in note for note in found[0]["notes"])
    assert main(["embed", out, data, "--out", "e.npz"]) == 0
    assert main(["export", out, "--out", "e.safetensors"]) == 0
    loaded = byol.load("e.safetensors")
    stored, source = np.load("e.npz"), open_source(sounds)
    length = round(source.headers.width.mean())
    wave = source.window(7, 0, length)[0, :, 0]
    with torch.no_grad():
        torch.testing.assert_close(loaded(loaded.preprocess(wave))[0], torch.from_numpy(stored["features"][7]), atol=1e-4, rtol=1e-4)
        assert loaded(loaded.preprocess(sounds / source.names[7])).shape == (1, 16)
    assert main(["report", out]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "log-mel spectrogram" in page
    assert "cannot be drawn" not in page
    assert (tmp_path / "run" / "views.png").stat().st_size > 1000


def test_the_doctor_speaks_of_sounds(sounds, capsys):
    assert "36 sounds" in "\n".join(byol.doctor(sounds).lines())
    assert main(["doctor", str(sounds), "--limit", "6"]) == 0
    assert "Suggested: byol train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"image_size": 32}, "image_size=32 is for images, and these are sounds"),
        ({"recipe": "imagenet-r50-100"}, "recipe imagenet-r50-100 is for images, and these data are sounds"),
        ({"set": ("blur=0.5",)}, "--set blur: no such setting"),
        ({"set": ("views=small",)}, "no view plan 'small'; there are: byol-a-v1, byol-a-v2"),
        ({"set": ("view2.blur=0.5",)}, "--set view2.blur: no such setting of one view"),
        ({"set": ("view3.noise=0.5",)}, "view3.noise: the views byol-a-v1 have no view 3"),
        ({"set": ("view2.memory=5",)}, "views of sound share one memory, not 2048 and 5; set memory without a view before it"),
    ],
)
def test_what_is_not_for_sounds_is_refused_in_one_sentence(sounds, asked, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        run.prepare(Request(data=str(sounds), **asked))
    assert "\n" not in str(error.value)


def test_evaluations_that_cannot_be_are_one_sentence(sounds, tmp_path):
    with pytest.raises(ValueError, match=r"semi is for images, and .* has sounds; give knn, linear, sound-linear or evar-linear"):
        byol.evaluate("random:audio-small-c4-d16", sounds, protocols=["semi"])
    (found,) = byol.evaluate("random:small-w16", sounds, protocols=["knn"])  # a network for images sees a spectrogram as one
    assert [s.name for s in found.scores] == ["log-mel", "mfcc", "random small-w16"]
    (found,) = byol.evaluate("log-mel", sounds, protocols=["knn"])
    assert found.scores[0].top1 > 0.5


def test_an_ablation_of_sounds_compares_their_views_and_refuses_what_is_for_images(sounds, tmp_path):
    asked = {"test": sounds, "seeds": 1, "epochs": 1, "batch_size": 8, "set": SMALL}
    values = ["noise + crop", "mixup", "mixup=0.4 noise=0 crop=false", "canvas=1.6", "push_each_view=false"]
    found = byol.ablate("sound_views", sounds, tmp_path / "out", values=values, **asked)
    assert [f.same_as for f in found.findings] == ["", "", "mixup", "", ""]
    assert [f.published and f.published.value for f in found.findings] == [69.3, 63.9, None, None, None]
    assert [len(f.linear) for f in found.findings] == [1, 1, 0, 1, 1]
    assert set(found.baselines) == {"log-mel", "mfcc", "random audio-small-c4-d16"}
    plan = run.read_plan(tmp_path / "out" / "noise-crop" / "seed-0")
    assert {key: plan.views[key] for key in ("mixup", "noise", "crop", "fader")} == {"mixup": 0.0, "noise": 0.4, "crop": True, "fader": 0.0}
    said = " ".join(" ".join(found.lines()).split())
    assert "64 bands x 21 frames, 1 epochs, 8 sounds an update" in said
    assert "averages over six tasks after a tenth of AudioSet" in said
    assert found.svg().startswith("<svg ")
    with pytest.raises(
        ValueError, match=r"^the ablation augmentations is of images, and .* has sounds; give sound_views, sound_norm, or a"
    ):
        byol.ablate("augmentations", sounds, tmp_path / "no", **asked)
    with pytest.raises(ValueError, match="--set blur: no such setting"):
        byol.ablate("sound_views", sounds, tmp_path / "no", values=["blur=0"], **asked)
    with pytest.raises(ValueError, match=r"sound_norm is of sounds, and digits has images; give augmentations, or a study of the method"):
        byol.ablate("sound_norm", "digits", tmp_path / "no", epochs=1)


def test_the_recipes_of_the_papers_hold_their_values(sounds):
    for version, lr in ((1, 3e-4), (2, 1e-4)):
        plan = run.prepare(Request(data=str(sounds), recipe=f"byol-a-v{version}", batch_size=8, encoder="audio-small-c4-d16")).plan
        s = plan.settings
        assert (s.views, s.lr, s.epochs, s.weight_decay, plan.warmup_steps) == (f"byol-a-v{version}", lr, 100, 0.0, 0)


def test_the_rate_and_tau_of_the_papers_are_the_same_at_every_step(sounds, tmp_path):
    more = {"recipe": "byol-a-v1", "encoder": "audio-small-c4-d16"}
    train(sounds, tmp_path / "run", **more, set=(*SMALL[1:], "log_steps=1"))
    log = logged(tmp_path / "run")
    assert [r["step"] for r in log] == list(range(1, 13))
    assert {r["lr"] for r in log} == {3e-4 * 8 / 256}
    assert {r["tau"] for r in log} == {0.99}


def test_a_named_set_is_tested_on_its_own_part(tmp_path):
    """Spoken digits: takes 0 to 4 test, whoever speaks."""
    for n in range(60):
        digit, take = n % 3, n // 3
        samples = tone(list(CLASSES.values())[digit] / 2, 1600, 8000, n)
        write(tmp_path / "fsdd" / f"{digit}_{'jackson' if take % 2 == 0 else 'lucas'}_{take // 2}.wav", rate=8000, samples=samples)
    data = f"fsdd:{tmp_path}"
    source = open_source(data)
    assert (len(source), source.rate, source.modality) == (30, 8000, "sound")
    (found,) = byol.evaluate("random:audio-small-c4-d16", data, protocols=["knn:k=3"])
    assert (found.train, found.test, found.samples) == (30, 30, "sounds")
    assert [s.name for s in found.scores] == ["log-mel", "mfcc", "random audio-small-c4-d16"]
    with pytest.raises(ValueError, match="fsdd is not in"):
        open_source(f"fsdd:{tmp_path / 'elsewhere'}")


def test_cepstral_coefficients_are_scipys():
    x = torch.randn(2, 1, 64, 5)
    c = scipy.fft.dct(x[:, 0].double().numpy(), axis=1, norm="ortho")[:, :20]
    ours = mfcc(SoundInput(mean=-3.0, std=2.0)).eval()(x)
    np.testing.assert_allclose(ours, np.concatenate([c.mean(2), c.std(2)], 1), atol=1e-5)
