"""HEAR's interface, by the rules of its validator (hear-validator 2021.0.6), which are written down here once more with torch alone."""

import inspect
from dataclasses import replace

import pytest
import torch
from hearing import noise, tone

from byol import hear
from byol.encoders import Input, SoundInput, load, save_weights
from byol.encoders.audio import AudioNet, v1

HEARD = SoundInput(mean=-5.0, std=4.5)
TINY = "audio-small-c4-d8"


def model(name=TINY, **changes):
    return hear.HearModel(load(name, input=replace(HEARD, **changes), seed=1))


def check_model(m):
    assert isinstance(m, torch.nn.Module)
    assert m.sample_rate in (16000, 22050, 32000, 44100, 48000)
    assert type(m.scene_embedding_size) is int
    assert type(m.timestamp_embedding_size) is int


def check_timestamps(m, seconds, sounds=2):
    """What the validator raises or warns of."""
    audio = noise(sounds, round(seconds * m.sample_rate))
    embedded, times = hear.get_timestamp_embeddings(audio, m)
    length = 1000 * audio.shape[1] / m.sample_rate
    assert embedded.dtype == torch.float32
    assert embedded.shape == (sounds, times.shape[1], m.timestamp_embedding_size)
    assert times.shape[0] == sounds
    assert bool((times == times[:1]).all()), "the same timestamps for every sound"
    gaps = times[0].double().diff()
    assert float((gaps - gaps.mean()).abs().max()) <= 1
    assert float(gaps.mean()) <= 50
    assert float(times[0, 0]) <= float(gaps.mean())
    assert length - min(50, float(gaps.mean())) <= float(times[0, -1]) <= length


def check_scene(m, seconds=2.74, sounds=4):
    embedded = hear.get_scene_embeddings(noise(sounds, round(seconds * m.sample_rate)), m)
    assert embedded.dtype == torch.float32
    assert embedded.shape == (sounds, m.scene_embedding_size)


@pytest.mark.parametrize(("name", "changes"), [(TINY, {}), ("byol-a-v2", {"bands": 16}), (TINY, {"rate": 44_100, "hop": 441})])
def test_the_validator_finds_nothing(name, changes):
    m = model(name, **changes)
    check_model(m)
    for seconds in (1.07, 1.98, 4.0):
        check_timestamps(m, seconds)
    check_scene(m)


def test_the_functions_are_called_as_hear_calls_them():
    path, *options = inspect.signature(hear.load_model).parameters.values()
    assert (path.name, path.default) == ("model_file_path", "")
    assert all(o.kind is o.KEYWORD_ONLY and o.default is not o.empty for o in options)
    for function in (hear.get_timestamp_embeddings, hear.get_scene_embeddings):
        assert [*inspect.signature(function).parameters] == ["audio", "model"]


def test_a_model_is_loaded_from_nothing_from_an_exported_file_and_from_a_released_one(tmp_path):
    check_model(hear.load_model("", encoder=TINY))
    encoder = load(TINY, input=HEARD, seed=4).eval()
    save_weights(encoder, tmp_path / "a.safetensors", extra={})
    audio = noise(1, 16_000)
    expected = hear.get_scene_embeddings(audio, hear.HearModel(encoder))
    assert torch.equal(hear.get_scene_embeddings(audio, hear.load_model(str(tmp_path / "a.safetensors"))), expected)
    torch.save(AudioNet(v1(8)).state_dict(), tmp_path / "b.pth")
    with pytest.warns(UserWarning, match="licence"):
        check_model(hear.load_model(str(tmp_path / "b.pth")))


def test_the_scene_is_the_encoders_own_embedding_of_the_whole_clip():
    m = model()
    audio = noise(2, 30_000)
    with torch.no_grad():
        assert torch.equal(hear.get_scene_embeddings(audio, m), m.encoder(m.encoder.preprocess(audio)))
    assert torch.equal(m(audio), hear.get_scene_embeddings(audio, m))


def test_a_batch_is_its_sounds_one_by_one_whatever_mode_the_model_is_in():
    m = model().train()
    audio = noise(2, 20_000)
    both, _ = hear.get_timestamp_embeddings(audio, m)
    m.train()
    single, _ = hear.get_timestamp_embeddings(audio[1:], m)
    torch.testing.assert_close(both[1:], single, rtol=0, atol=1e-6)
    torch.testing.assert_close(hear.get_scene_embeddings(audio, m)[:1], hear.get_scene_embeddings(audio[:1], m), rtol=0, atol=1e-6)


def test_long_audio_goes_through_in_parts_and_comes_out_the_same(monkeypatch):
    m = model()
    audio = noise(3, 20_000)
    expected = hear.get_timestamp_embeddings(audio, m)[0]
    monkeypatch.setattr(hear, "_TOGETHER", 1)
    torch.testing.assert_close(hear.get_timestamp_embeddings(audio, m)[0], expected, rtol=0, atol=1e-6)


def test_half_precision_is_off():
    m = model()
    audio = noise(1, 16_000)
    expected = hear.get_scene_embeddings(audio, m)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hear.get_scene_embeddings(audio, m), expected)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_timestamps_of_ten_minutes_do_not_drift(rate):
    times = hear.timestamps(600 * rate, rate, hear.HOP)
    assert torch.equal(times.float().double(), torch.arange(15_001).double() * 40)


def test_what_happens_at_a_time_is_embedded_at_that_time():
    m = model("byol-a-v2", bands=16)
    audio = torch.zeros(1, 48_000)
    audio[:, 24_000:24_400] = torch.from_numpy(tone(1000, 0.025))
    silent = hear.get_timestamp_embeddings(torch.zeros(1, 48_000), m)[0]
    embedded, times = hear.get_timestamp_embeddings(audio, m)
    moved = (embedded - silent)[0].norm(dim=1)
    centre = float((moved * times[0]).sum() / moved.sum())
    assert abs(centre - 1512.5) < 8, "the tone is from 1500 to 1525 ms"


def test_between_two_frames_it_is_interpolated_and_beyond_the_ends_kept():
    y = torch.tensor([0.0, 10.0, 30.0])[None, :, None]
    at = torch.tensor([-1.0, 0.0, 0.5, 1.25, 2.0, 9.0], dtype=torch.float64)
    assert hear.interpolated(y, at)[0, :, 0].tolist() == [0, 0, 5, 15, 30, 30]


def test_an_encoder_without_features_over_time_is_one_sentence():
    images = load("small-w1-n2", input=Input(channels=1, size=8, mean=(0.5,), std=(0.5,)))
    for encoder in (images, load("small-w1-n2", input=HEARD)):
        with pytest.raises(ValueError, match="gives no features over time"):
            hear.HearModel(encoder)
    for function in (hear.get_scene_embeddings, hear.get_timestamp_embeddings):
        with pytest.raises(ValueError, match=r"give \(sounds, samples\)"):
            function(noise(16_000), model())
