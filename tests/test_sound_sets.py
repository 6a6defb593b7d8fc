import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

import sound_sets_files as files
import soundfile

from byol.data.sound_sets import SOUND_SETS, is_sound_set, open_sound_set, sound_set_names
from byol.evaluation.metrics import measured


def parts(name, root):
    """(names, labels) of training, validation and test clips."""
    train, test = (open_sound_set(name, root, part) for part in ("train", "test"))
    val = train.official.val
    assert not test.official.val.any()
    rows = [(train, np.flatnonzero(~val)), (train, np.flatnonzero(val)), (test, np.arange(len(test)))]
    return [[(source.names[i], source.classes[source.labels[i]]) for i in some] for source, some in rows]


def test_nsynth_has_the_families_of_its_instruments(tmp_path):
    files.nsynth(tmp_path)
    train, val, test = parts("nsynth", tmp_path)
    assert [len(p) for p in (train, val, test)] == [4, 2, 2]
    assert train[0] == ("nsynth-train/audio/guitar_acoustic_000-060-100.wav", "guitar")
    assert {label for _, label in test} == {"bass", "guitar"}


@pytest.mark.parametrize(("name", "folds", "count"), [("urbansound8k", 10, 20), ("esc50", 5, 10)])
def test_sets_with_folds_are_one_part(tmp_path, name, folds, count):
    getattr(files, name)(tmp_path)
    source = open_sound_set(name, tmp_path)
    assert len(source) == count
    assert source.official.folds.tolist() == [i % folds for i in range(count)]
    assert not source.official.val.any()
    assert [source.classes[y] for y in source.labels[:2]] == {"urbansound8k": ["siren", "dog_bark"], "esc50": ["dog", "rain"]}[name]
    assert (source.groups == np.arange(count) // 2).all()
    assert source.subset([3, 1]).official.folds.tolist() == [3, 1]
    assert source.read(0).shape == (1, 145, 1)
    with pytest.raises(ValueError, match=rf"^{name} has folds and no test part; open its one part"):
        open_sound_set(name, tmp_path, "test")


def test_voxceleb_is_divided_as_its_list_says(tmp_path):
    files.voxceleb1(tmp_path)
    train, val, test = parts("voxceleb1", tmp_path)
    assert train == [("dev/wav/id10000/video0/00000.wav", "id10000"), ("test/wav/id10001/video3/00003.wav", "id10001")]
    assert [n[-9:] for n, _ in val + test] == ["00001.wav", "00004.wav", "00002.wav", "00005.wav"]


@pytest.mark.parametrize(("name", "people"), [("voxforge", 20), ("cremad", 20)])
def test_no_speaker_is_in_two_parts_of_a_drawn_split(tmp_path, name, people):
    getattr(files, name)(tmp_path)
    train, test = (open_sound_set(name, tmp_path, part) for part in ("train", "test"))
    val = train.official.val
    speakers = [set(train.groups[~val]), set(train.groups[val]), set(test.groups)]
    assert [len(s) for s in speakers] == [0.7 * people, 0.1 * people, 0.2 * people]
    assert len(set.union(*speakers)) == people
    assert train.classes == (["de", "en"] if name == "voxforge" else ["ANG", "DIS", "FEA", "HAP", "NEU", "SAD"])
    assert "20 speakers divided 70 / 10 / 20 % here" in train.notes[-1]
    assert list(open_sound_set(name, tmp_path, "test").names) == list(test.names)


def test_a_split_that_lies_beside_takes_the_place_of_a_drawn_one(tmp_path):
    files.cremad(tmp_path)
    rows = ["1001_DFA_ANG_XX.wav,ANG,1001,test", "1002_DFA_SAD_XX.wav,SAD,1002,train", "1003_DFA_SAD_XX.wav,SAD,1003,valid"]
    files.lines(tmp_path / "CREMA-D" / "splits.csv", ["file_name,label,speaker_id,split", *rows])
    train, val, test = parts("cremad", tmp_path)
    assert (train, val, test) == (
        [("AudioWAV/1002_DFA_SAD_XX.wav", "SAD")],
        [("AudioWAV/1003_DFA_SAD_XX.wav", "SAD")],
        [("AudioWAV/1001_DFA_ANG_XX.wav", "ANG")],
    )


def test_speech_commands_are_divided_by_their_lists(tmp_path):
    files.speechcommands(tmp_path)
    train, val, test = parts("speechcommands", tmp_path)
    assert [len(p) for p in (train, val, test)] == [6, 3, 3]
    assert {label for _, label in train} == set(files.WORDS)
    assert val[0] == ("backward/c_nohash_0.wav", "backward")
    assert all("/d_" in name for name, _ in test)


def test_twelve_commands_have_silence_in_seconds_and_a_test_of_their_own(tmp_path):
    files.speechcommands(tmp_path)
    train, val, test = parts("speechcommands12", tmp_path)
    noise = [f"_background_noise_/{n}.wav@{at}" for n in ("pink_noise", "running_tap") for at in (0, 8_000, 16_000)]
    assert [n for n, label in train if label == "_silence_"] == noise[:3]
    assert [n for n, label in val if label == "_silence_"] == noise[3:]
    assert sorted(label for _, label in train) == ["_silence_"] * 3 + ["_unknown_"] * 2 + ["down"] * 2 + ["yes"] * 2
    assert [label for _, label in test] == ["_silence_", "_unknown_", "down", "yes"]
    source = open_sound_set("speechcommands12", tmp_path)
    row = list(source.names).index(noise[4])
    whole = soundfile.read(tmp_path / "speech_commands_v0.02" / "_background_noise_" / "running_tap.wav", dtype="float32")[0]
    assert source.headers.width[row] == 16_000
    assert (source.read(row)[0, :, 0] == whole[8_000:24_000]).all()
    (tmp_path / "speech_commands_test_set_v0.02" / "_silence_").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"speech_commands_test_set_v0.02.* cannot be read \(missing\); get speech_commands_v0.02.tar.gz"):
        open_sound_set("speechcommands12", tmp_path)


def test_fsd50k_has_several_classes_a_clip(tmp_path):
    files.fsd50k(tmp_path)
    train, test = (open_sound_set("fsd50k", tmp_path, part) for part in ("train", "test"))
    assert train.labels is None
    assert (train.official.metric, train.classes) == ("mAP", ["Bark", "Dog", "Rain"])
    assert train.official.targets.tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert train.official.val.tolist() == [False, False, True]
    assert test.official.targets.tolist() == [[0, 1, 1], [1, 0, 0]]


def test_gtzan_has_folds_or_the_split_without_faulty_clips(tmp_path):
    files.gtzan(tmp_path)
    source = open_sound_set("gtzan", tmp_path)
    counts = np.zeros((2, 10), int)
    np.add.at(counts, (source.labels, source.official.folds), 1)
    assert (counts == 2).all()
    for part, i in (("train", 0), ("valid", 5), ("test", 9)):
        files.lines(tmp_path / f"{part}_filtered.txt", [f"{g}/{g}.{i:05d}.wav" for g in ("blues", "jazz")])
    train, val, test = parts("gtzan", tmp_path)
    assert [[n for n, _ in p] for p in (train, val, test)] == [[f"{g}/{g}.0000{i}.wav" for g in ("blues", "jazz")] for i in (0, 5, 9)]
    (tmp_path / "test_filtered.txt").unlink()
    with pytest.raises(ValueError, match=r"has some of train_filtered\.txt"):
        open_sound_set("gtzan", tmp_path)


def test_spoken_digits_test_on_the_first_five_takes(tmp_path):
    files.fsdd(tmp_path)
    train, val, test = parts("fsdd", tmp_path)
    assert {n.split("_")[2] for n, _ in test} == {f"{t}.wav" for t in range(5)}
    assert (len(train), len(val), len(test)) == (20 - len(val), len(val), 20)
    assert 0 < len(val) < 10
    assert all(name[0] == label for name, label in train + val + test)


@pytest.mark.parametrize("name", SOUND_SETS)
def test_a_set_that_is_not_there_is_told_in_one_sentence(tmp_path, name):
    with pytest.raises(ValueError, match=rf"^{name} is not in .* is missing; get .* and unpack it there$"):
        open_sound_set(name, tmp_path)


def test_names_are_known_with_a_folder_alone():
    assert is_sound_set("ESC50:/data")
    assert not is_sound_set("esc50")
    assert not is_sound_set("photos:/data")
    assert set(sound_set_names()) == {f"{n}:FOLDER" for n in SOUND_SETS}
    with pytest.raises(ValueError, match="there is no set of sounds 'esc'; there are nsynth, "):
        open_sound_set("esc", None)


@pytest.mark.parametrize("table", ["UrbanSound8K/metadata/UrbanSound8K.csv", "ESC-50-master/meta/esc50.csv"])
def test_lists_that_are_wrong_are_refused_in_one_sentence(tmp_path, table):
    name = "esc50" if "ESC" in table else "urbansound8k"
    getattr(files, name)(tmp_path)
    text = (tmp_path / table).read_text()
    for wrong in (text[: len(text) // 2] + "\nx", "", text.replace("fold", "part"), text.replace(".wav", ".wav/../../../etc"), "\xff\xfe"):
        (tmp_path / table).write_text(wrong, encoding="latin-1")
        with pytest.raises(ValueError, match="official"):
            open_sound_set(name, tmp_path)


def test_map_is_the_mean_over_classes_of_the_average_precision_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand((60, 4), generator=generator).mul(8).round()  # with ties
    y = (torch.rand((60, 4), generator=generator) < 0.3).long()
    expected = average_precision_score(y.numpy(), scores.numpy(), average="macro")
    assert measured("mAP", scores, y) == pytest.approx(expected, abs=1e-12)
