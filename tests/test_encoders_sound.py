"""What encoders of sound hear, how they are stored, and the weights that BYOL-A's authors released."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hearing import noise, tone, write_wav

from byol.encoders import Input, SoundInput, input_from_json, load, load_byol_a, load_weights, log_mel, save_weights
from byol.encoders.audio import V2, AudioNet, v1
from byol.encoders.released import LICENCE

HEARD = SoundInput(mean=-5.0, std=4.5)
SMALL = load("audio-small-c4-d8", input=HEARD).eval()


def plain_log_mel(x):
    """(samples,) -> (64, frames) float64, by a loop over frames and the definition of the mel scale."""
    padded = np.pad(x.astype(np.float64), 512, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    frames = [np.abs(np.fft.rfft(padded[i * 160 : i * 160 + 1024] * hann)) ** 2 for i in range(1 + len(x) // 160)]

    def mel(f):
        return 2595 * math.log10(1 + f / 700)

    edges = [700 * (10 ** (m / 2595) - 1) for m in np.linspace(mel(60), mel(7800), 66)]
    f = np.arange(513) * 16000 / 1024
    triples = [edges[i : i + 3] for i in range(64)]
    bank = [np.clip(np.minimum((f - a) / (b - a), (c - f) / (c - b)), 0, None) for a, b, c in triples]
    return np.log(np.stack(bank) @ np.stack(frames, 1) + 2.0**-23)


def test_a_waveform_becomes_the_normalised_log_mel_of_its_definition():
    x = noise(20_000).numpy()
    heard = SMALL.preprocess(x)
    assert heard.shape == (1, 1, 64, 126)
    theirs = (plain_log_mel(x) + 5.0) / 4.5
    torch.testing.assert_close(heard[0, 0], torch.from_numpy(theirs).float(), rtol=0, atol=2e-3)


def test_arrays_tensors_integers_and_files_are_heard_alike(tmp_path):
    pytest.importorskip("soundfile")
    x = np.round(tone(440, 1.2) * 32767) / 32768
    path = write_wav(tmp_path / "a.wav", x * 32768 / 32767)
    expected = SMALL.preprocess(x.astype(np.float32))
    for sound in (torch.from_numpy(x), (x * 32768).astype(np.int16), x[None], path, str(path), path.read_bytes(), [path]):
        torch.testing.assert_close(SMALL.preprocess(sound), expected, rtol=0, atol=1e-4)
    with torch.no_grad():
        assert SMALL(SMALL.preprocess([path, x])).shape == (2, 8)


def test_channels_are_averaged_and_other_rates_resampled(tmp_path):
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    x = tone(500, 1.5, rate=44_100)
    stereo = write_wav(tmp_path / "b.wav", np.stack([1.2 * x, 0.8 * x], 1), rate=44_100)
    expected = SMALL.preprocess(tone(500, 1.5))
    heard = SMALL.preprocess(stereo)
    assert heard.shape == expected.shape
    loudest = expected[0, 0].mean(1).argmax()
    torch.testing.assert_close(heard[0, 0, loudest, 5:-5], expected[0, 0, loudest, 5:-5], rtol=0, atol=0.01)
    torch.testing.assert_close(SMALL.preprocess(x, rate=44_100)[0, 0, loudest, 5:-5], expected[0, 0, loudest, 5:-5], rtol=0, atol=0.01)


def test_what_is_shorter_than_the_unit_is_followed_by_silence():
    assert HEARD.unit == 15_200
    x = noise(4_000)
    heard = SMALL.preprocess(x)
    assert heard.shape[-1] == 96
    assert torch.equal(heard, log_mel(torch.cat([x, torch.zeros(11_200)])[None], HEARD))
    assert SMALL.preprocess(noise(15_201)).shape[-1] == 96


@pytest.mark.parametrize(
    ("sound", "options", "sentence"),
    [
        ([], {}, "no sounds"),
        ([np.zeros(16_000, np.float32), np.zeros(17_000, np.float32)], {}, "16,000 to 17,000 samples"),
        (np.full(16_000, np.nan, np.float32), {}, "NaN"),
        (np.zeros((16_000, 2), np.float32), {}, "channels last"),
        (np.zeros((2, 2, 16_000), np.float32), {}, r"shape \(2, 2, 16000\)"),
        (np.zeros(16_000, np.uint8), {}, "type uint8"),
        (np.full(16_000, 3e4, np.float32), {}, r"floats are in \[-1, 1\]"),
        (3, {}, "a int is no sound"),
        (np.zeros(16_000, np.float32), {"rate": -1}, "-1 Hz"),
        (np.zeros(16_000, np.float32), {"rate": 0}, "0 Hz"),
    ],
)
def test_what_is_no_sound_is_one_sentence(sound, options, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        SMALL.preprocess(sound, **options)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_sound_is_one_sentence(tmp_path):
    pytest.importorskip("soundfile")
    (tmp_path / "a.wav").write_bytes(b"no sound")
    for sound in (tmp_path / "a.wav", tmp_path / "missing.wav"):
        with pytest.raises(ValueError, match=f"{sound.name} cannot be read as sound"):
            SMALL.preprocess(sound)


def test_images_have_no_rate():
    eyes = load("small-w1-n2", input=Input(channels=1, size=8, mean=(0.5,), std=(0.5,)))
    with pytest.raises(ValueError, match="images, which have no rate"):
        eyes.preprocess(np.zeros((8, 8), np.uint8), rate=16_000)


# The input, and its file


def test_an_input_of_sound_goes_through_json_and_one_of_images_as_before():
    heard = replace(HEARD, rate=22_050, bands=80, f_max=11_000.0)
    assert input_from_json(json.loads(json.dumps(heard.to_json()))) == heard
    seen = Input(channels=1, size=8, mean=(0.5,), std=(0.5,))
    assert "kind" not in seen.to_json()
    assert input_from_json(json.loads(json.dumps(seen.to_json()))) == seen
    assert (heard.shape, seen.shape) == ((1, 80, 96), (1, 8, 8))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rate": 0}, "rate is 0"),
        ({"bands": 1 << 40}, "bands is"),
        ({"window": 2048}, "window of 2048"),
        ({"f_max": 9000.0}, "holds 0 to 8000 Hz, not 60 to 9000"),
        ({"f_min": 8000.0}, "not 8000 to 7800"),
        ({"std": 0.0}, "deviation is 0"),
    ],
)
def test_an_input_that_is_not_possible_is_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(HEARD, **changes)


@pytest.mark.parametrize(
    "fields", [{"kind": "smell"}, {"kind": 3}, {"kind": "sound"}, {**HEARD.to_json(), "rate": "x"}, {**HEARD.to_json(), "a": 1}]
)
def test_a_damaged_input_is_a_value_error(fields):
    with pytest.raises(ValueError, match=r"kind|missing|rate|field"):
        input_from_json(fields)


@pytest.mark.parametrize("name", ["audio-small-c4-d8", "audio-small-c4-d8+gn", "byol-a-v1-d8"])
def test_an_encoder_of_sound_is_stored_and_read_back_with_its_input(name, tmp_path):
    encoder = load(name, input=HEARD, seed=3).eval()
    save_weights(encoder, tmp_path / "a.safetensors", extra={"run": "x"})
    assert json.loads((tmp_path / "a.json").read_text())["input"]["kind"] == "sound"
    again = load_weights(tmp_path / "a.safetensors")
    assert (again.name, again.dim, again.input, again.provenance["run"]) == (encoder.name, 8, HEARD, "x")
    x = noise(2, 1, 64, 30)
    with torch.no_grad():
        assert torch.equal(again(x), encoder(x))


# Released weights


def released(path, shape, *, change=lambda state: state):
    """A file of the structure that the authors saved: the state dict of the network alone."""
    net = AudioNet(shape)
    torch.save(change(net.state_dict()), path)
    return net


def keys(blocks):
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    found = {f"fc.{i}.{part}" for i in (0, 3) for part in ("weight", "bias")}
    for i in range(0, 4 * blocks, 4):
        found |= {f"features.{i}.weight", f"features.{i}.bias", *(f"features.{i + 1}.{part}" for part in norm)}
    return found


def test_the_networks_keys_are_those_of_the_released_files():
    assert set(AudioNet(v1(4)).state_dict()) == keys(3)
    with torch.device("meta"):
        assert set(AudioNet(V2).state_dict()) == keys(2)


@pytest.mark.parametrize(
    ("file", "shape", "name", "mean"),
    [
        ("AudioNTT2020-BYOLA-64x96d512.pth", v1(512), "byol-a-v1-d512", -5.4919195),
        ("AudioNTT2022-BYOLA-64x96d2048.pth", V2, "byol-a-v2", -9.660292),
    ],
)
def test_a_released_file_gives_the_encoder_that_it_was_saved_from(file, shape, name, mean, tmp_path):
    net = released(tmp_path / file, shape).eval()
    with pytest.warns(UserWarning, match=f"{file}: .*EVALUATION.*no open-source licence"):
        encoder = load_byol_a(tmp_path / file)
    assert (encoder.name, encoder.dim, encoder.training, encoder.input.mean) == (name, net.dim, False, mean)
    assert encoder.provenance["licence"] == LICENCE
    x = noise(1, 1, 64, 40)
    with torch.no_grad():
        assert torch.equal(encoder(x), net(x))


def test_the_licence_stays_with_the_weights_when_they_are_stored_again(tmp_path):
    released(tmp_path / "a.pth", v1(8))
    with pytest.warns(UserWarning, match="licence"):
        encoder = load_byol_a(tmp_path / "a.pth", input=replace(HEARD, mean=1.0))
    save_weights(encoder, tmp_path / "b.safetensors", extra={})
    again = load_weights(tmp_path / "b.safetensors")
    assert again.provenance["licence"] == LICENCE
    assert again.input.mean == 1.0


@pytest.mark.parametrize("wrap", [lambda s: {"state_dict": s}, lambda s: {f"model.{k}": v for k, v in s.items()}])
def test_the_usual_wrappings_are_taken_off(wrap, tmp_path):
    released(tmp_path / "a.pth", v1(8), change=wrap)
    with pytest.warns(UserWarning, match="licence"):
        assert load_byol_a(tmp_path / "a.pth").name == "byol-a-v1-d8"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: {**s, "projector.0.weight": torch.zeros(2)}, "projector.0.weight has no place"),
        (lambda s: {k: v for k, v in s.items() if k != "fc.3.bias"}, "fc.3.bias is missing"),
        (lambda s: {**s, "fc.3.bias": torch.zeros(9)}, r"fc.3.bias has the shape \(9,\), not \(8,\)"),
        (lambda s: {k: v for k, v in s.items() if k != "fc.0.weight"}, "another network"),
        (lambda s: {"epoch": 3}, "no tensors by name"),
        (lambda s: [1, 2], "no tensors by name"),
    ],
)
def test_every_tensor_of_a_file_has_to_have_its_place(change, sentence, tmp_path):
    released(tmp_path / "a.pth", v1(8), change=change)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_byol_a(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)


class Trap:
    def __reduce__(self):
        return (print, ("the file ran code",))


def test_a_file_that_is_none_of_tensors_is_refused_and_runs_nothing(tmp_path, capsys):
    torch.save({"features.0.weight": Trap()}, tmp_path / "trap.pth")
    (tmp_path / "text.pth").write_text("text")
    for name in ("trap.pth", "text.pth", "missing.pth"):
        with pytest.raises(ValueError, match=r"no PyTorch file|there is no file"):
            load_byol_a(tmp_path / name)
    assert "ran code" not in capsys.readouterr().out


def test_released_weights_are_for_their_bands_alone(tmp_path):
    released(tmp_path / "a.pth", v1(8))
    with pytest.raises(ValueError, match="64 bands, not 80"):
        load_byol_a(tmp_path / "a.pth", input=replace(HEARD, bands=80))
