"""Named sets of sounds by the ordinary commands, on miniatures: folds, several classes a clip, few labels, released encoders."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

import sound_sets_files as files
from sound_files import write
from test_encoders_sound import released, v1

import byol
from byol import encoders, subjects
from byol.cli import main
from byol.data import open_sound_set, open_source
from byol.evaluation import SoundLinear, evaluate
from byol.published.beside import beside

TINY = "audio-small-c4-d16"
TONES = (300, 900, 2700)


def tones(which, frames, seed):
    """The tones of these numbers together, in noise."""
    noise = np.random.default_rng(seed).standard_normal(frames)
    t = np.arange(frames) / 16_000
    return (sum(0.25 * np.sin(2 * np.pi * TONES[i] * t) for i in which) + 0.05 * noise).astype(np.float32)


@pytest.fixture
def fsd50k(tmp_path):
    """48 clips for development, of them a quarter to validate by, and 16 to test with: of one to three tones each."""
    base, names = tmp_path / "FSD50K", ("Bark", "Dog", "Rain")
    files.lines(base / "FSD50K.ground_truth" / "vocabulary.csv", [f"{i},{name},/m/{i}" for i, name in enumerate(names)])
    rows = {"dev": [], "eval": []}
    for n in range(64):
        which = [i for i in range(3) if (1 + n % 7) >> i & 1]
        part = "dev" if n < 48 else "eval"
        write(base / f"FSD50K.{part}_audio" / f"{n}.wav", samples=tones(which, 3200, n), rate=16_000)
        rows[part].append(f'{n},"{",".join(names[i] for i in which)}",x' + (f",{'val' if n % 4 == 0 else 'train'}" if n < 48 else ""))
    files.lines(base / "FSD50K.ground_truth" / "dev.csv", ["fname,labels,mids,split", *rows["dev"]])
    files.lines(base / "FSD50K.ground_truth" / "eval.csv", ["fname,labels,mids", *rows["eval"]])
    return f"fsd50k:{tmp_path}"


def test_clips_of_several_classes_are_scored_by_map_on_the_test_part(fsd50k, capsys):
    protocols = ["sound-linear:epochs=60,repeats=2,lr=0.05,patience=60", "evar-linear:epochs=60,repeats=1,lr=0.05"]
    assert main(["evaluate", f"random:{TINY}", fsd50k, "--protocol", *protocols, "--json"]) == 0
    out = capsys.readouterr()
    for found in json.loads(out.out.splitlines()[-1])["evaluations"]:
        assert (found["metric"], found["train"], found["test"], found["classes"]) == ("mAP", 48, 16, 3)
        assert [s["name"] for s in found["scores"]] == ["log-mel", "mfcc", f"random {TINY}"]
        assert found["scores"][0]["settings"]["validation"] == "the data's own"
        assert found["scores"][0]["top1"] > 0.95  # three tones: a spectrogram shows them
        low, high = found["scores"][2]["interval"]
        assert 0 <= low <= found["scores"][2]["top1"] + 0.1
        assert high <= 1
    assert "mAP %" in out.err


def test_the_map_of_a_protocol_is_that_of_scikit_learn(fsd50k, monkeypatch):
    train, seen = open_source(fsd50k), []
    test = open_sound_set("fsd50k", Path(fsd50k.partition(":")[2]), "test")
    predict = SoundLinear.predict
    monkeypatch.setattr(SoundLinear, "predict", lambda self, task: seen.append(predict(self, task)) or seen[-1])
    network = encoders.load(TINY, input=subjects.input_for(train)).eval()
    (found,) = evaluate([("run", network)], train, test, protocols=[SoundLinear(epochs=2, repeats=2)])
    expected = [average_precision_score(test.official.targets, s.numpy(), average="macro") for s in seen[0].scores]
    assert found.scores[0].top1 == pytest.approx(np.mean(expected), abs=1e-9)
    assert 0.3 < np.mean(expected) < 1
    assert found.scores[0].top5 is None


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--protocol", "knn"], "have several classes, which knn cannot predict; give --protocol sound-linear or evar-linear"),
        ([], "which knn cannot predict"),
        (["--protocol", "sound-linear", "--labels", "0.1"], "shares of the labels cannot be drawn by class; leave --labels out"),
    ],
)
def test_what_several_classes_a_clip_do_not_allow_is_one_sentence(fsd50k, asked, sentence, capsys):
    assert main(["evaluate", f"random:{TINY}", fsd50k, *asked]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("name", "folds", "count", "lr", "more"), [("urbansound8k", 10, 20, 3e-5, []), ("esc50", 5, 10, 1e-3, ["linear"])])
def test_sets_with_folds_are_tested_on_each_in_turn_under_every_protocol(tmp_path, monkeypatch, name, folds, count, lr, more, capsys):
    getattr(files, name)(tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = ["--protocol", "evar-linear:epochs=2,repeats=1", "sound-linear:epochs=2,repeats=2", "knn", *more, "--labels", "0.5", "1"]
    assert main(["evaluate", f"random:{TINY}", f"{name}:.", *asked, "--draws", "2", "--json"]) == 0
    out = capsys.readouterr()
    evaluations = json.loads(out.out.splitlines()[-1])["evaluations"]
    assert len(evaluations) == 3 + len(more)
    for found in evaluations:
        assert (found["train"], found["test"], found["samples"]) == (count - count // folds, count, "sounds")
        assert found["split"] == f"{folds} folds, each left out in turn"
        assert [len(s["folds"]) for s in found["scores"]] == [folds] * 6
        assert not any("folds are not used" in note for note in found["notes"])
    assert evaluations[0]["scores"][1]["settings"]["lr"] == lr
    assert max(map(len, out.err.splitlines())) <= 80
    assert f"over {folds} folds" in " ".join(out.err.split())


def test_what_was_published_on_a_set_with_folds_says_so():
    (near,) = beside("urbansound8k:/data", 10, "sound-linear", [1.0], train=7859, test=8732)
    assert {(r.network, r.value) for r in near.rows} >= {("byol-a-v1-d2048", 79.1)}
    assert "10 folds" in near.differences
    for data, classes, count in (("urbansound8k:/data", 10, 10), ("esc50:/data", 50, 5)):
        (near,) = beside(data, classes, "evar-linear", [1.0], train=0, test=0)
        assert f"{count} folds" in near.differences


def spoken(root, rate=16_000):
    for n in range(12):
        write(root / ("low", "high")[n % 2] / f"{n}.wav", samples=tones([n % 2], rate // 5, n), rate=rate)
    return root


@pytest.mark.filterwarnings("error")
def test_a_released_file_is_evaluated_and_embeds_by_its_name_and_says_its_licence_once(tmp_path, monkeypatch, capsys):
    released(tmp_path / "a.pth", v1(8))
    spoken(tmp_path / "sounds")
    monkeypatch.chdir(tmp_path)
    data, spec = "sounds", "byol-a:a.pth"
    assert main(["evaluate", spec, data, "--protocol", "knn:k=3", "--json"]) == 0
    out = capsys.readouterr()
    (found,) = json.loads(out.out.splitlines()[-1])["evaluations"]
    assert [s["name"] for s in found["scores"]] == ["log-mel", "mfcc", "random byol-a-v1-d8", spec]
    assert " ".join(out.err.split()).count("SOFTWARE LICENSE AGREEMENT") == 1
    assert max(map(len, out.err.splitlines())) <= 80
    assert main(["embed", spec, data, "--out", "e.npz"]) == 0
    assert np.load(tmp_path / "e.npz")["features"].shape == (12, 8)


@pytest.mark.parametrize("rate", [16_000, 8_000])
def test_a_released_network_hears_at_its_own_rate_with_the_statistics_of_the_data(tmp_path, rate):
    released(tmp_path / "a.pth", v1(8))
    source = open_source(spoken(tmp_path / "sounds", rate))
    assert source.rate == rate
    with pytest.warns(UserWarning, match="licence"):
        _, found = subjects.encoder_for(f"byol-a:{tmp_path / 'a.pth'}", source)
    with pytest.warns(UserWarning, match="licence"):
        as_it_is = encoders.load_byol_a(tmp_path / "a.pth")
    assert found.input.front == as_it_is.input.front
    waves = np.stack([np.pad(source.read(i)[0, :, 0], (p := (round(0.95 * rate) - rate // 5) // 2, p)) for i in range(12)])
    x = encoders.log_mel(torch.from_numpy(encoders.resampled(waves, rate, 16_000)), found.input).double()
    # Normalised by themselves.
    assert abs(float(x.mean())) < 0.02
    assert float(x.std()) == pytest.approx(1, abs=0.02)


def test_a_released_file_on_images_or_that_is_not_there_is_one_sentence(tmp_path):
    released(tmp_path / "a.pth", v1(8))
    with pytest.raises(ValueError, match=r"byol-a:.*a.pth is an encoder of sounds, and digits has images; give sounds"):
        byol.evaluate(f"byol-a:{tmp_path / 'a.pth'}", "digits")
    with pytest.raises(ValueError, match=r"there is no file .*b\.pth"):
        byol.evaluate(f"byol-a:{tmp_path / 'b.pth'}", spoken(tmp_path / "sounds"))


def test_a_list_of_other_labels_on_the_same_sounds_is_another_task(tmp_path, monkeypatch, capsys):
    """Who speaks and what is said: two lists, and few labels of each."""
    monkeypatch.chdir(tmp_path)
    spoken(tmp_path / "sounds")
    for task, label in (("pitch", lambda n: n % 2), ("speaker", lambda n: n // 6)):
        files.lines(tmp_path / f"{task}.csv", [f"sounds/{('low', 'high')[n % 2]}/{n}.wav,{label(n)}" for n in range(12)])
    protocols = ["--protocol", "knn:k=1", "linear", "--labels", "0.3", "1", "--draws", "2"]
    for task in ("pitch", "speaker"):
        assert main(["evaluate", f"random:{TINY}", f"{task}.csv", "--test", f"{task}.csv", *protocols]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any("30 % labels" in line and "100 %" in line for line in lines)
        assert max(map(len, lines)) <= 80
