"""Log-mel spectrograms against a transcription in float64 NumPy, frame by frame and band by band, and against torchaudio."""

import math

import numpy as np
import pytest
import torch

from byol.logmel import FrontEnd, LogMel

EPS = 2.0**-23


def reference(wave, rate=16000, window=1024, fft=1024, hop=160, bands=64, f_min=60, f_max=7800, power=2):
    """(T,) -> (bands, frames), ln of mel energies."""
    x = np.pad(np.asarray(wave, np.float64), fft // 2, mode="reflect")
    hann = [0.5 - 0.5 * math.cos(2 * math.pi * n / window) for n in range(window)]
    taper = np.zeros(fft)
    taper[(fft - window) // 2 : (fft - window) // 2 + window] = hann
    mels = np.linspace(*(2595 * math.log10(1 + f / 700) for f in (f_min, f_max)), bands + 2)
    corners = [700 * (10 ** (m / 2595) - 1) for m in mels]
    hertz = np.arange(fft // 2 + 1) * rate / fft
    frames = []
    for start in range(0, len(x) - fft + 1, hop):
        spectrum = np.abs(np.fft.rfft(x[start : start + fft] * taper)) ** power
        energy = [spectrum @ np.interp(hertz, corners[b : b + 3], [0, 1, 0]) for b in range(bands)]
        frames.append(np.log(np.array(energy) + EPS))
    return np.stack(frames, 1)


def sounds(samples, rate=16000):
    """Noise, two tones and noise, a sweep, silence."""
    noise = np.random.default_rng(0)
    t = np.arange(samples) / rate
    tones = 0.5 * np.sin(2 * math.pi * 440 * t) + 0.3 * np.sin(2 * math.pi * 3000 * t) + 0.001 * noise.standard_normal(samples)
    sweep = np.sin(2 * math.pi * (100 * t + 3000 * t**2))
    return np.stack([0.1 * noise.standard_normal(samples), tones, sweep, np.zeros(samples)]).astype(np.float32)


def alike(ours, theirs, power=2):
    """Energies to 1e-4 of each: amplitudes to half of that; beside a loud tone, to what a Fourier transform in float32 leaves of it."""
    ours, theirs = ((torch.as_tensor(x, dtype=torch.float64) / power).exp() for x in (ours, theirs))
    assert ours.shape == theirs.shape
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=5e-5, atol=1e-6 * float(other.max()))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rate": 8000, "window": 400, "fft": 512, "hop": 100, "bands": 20, "f_min": 0, "f_max": 4000},
        {"window": 401, "fft": 1000, "hop": 333, "bands": 30, "power": 1},
    ],
)
def test_log_mels_are_those_of_the_equations(settings):
    x = sounds(3000, settings.get("rate", 16000))
    ours = LogMel(FrontEnd(**settings))(torch.from_numpy(x))
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    assert ours.shape == (4, 1, settings.get("bands", 64), 1 + 3000 // settings.get("hop", 160))
    alike(ours[:, 0], np.stack([reference(wave, **settings) for wave in x]), settings.get("power", 2))


def test_log_mels_are_torchaudios(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)  # else it compares its own with torch's, and refuses to be imported; no matter here
    try:
        from torchaudio import transforms
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchaudio is not here: {error}")
    theirs = transforms.MelSpectrogram(
        sample_rate=16000, n_fft=1024, win_length=1024, hop_length=160, n_mels=64, f_min=60, f_max=7800, power=2
    )
    x = torch.from_numpy(sounds(15200))
    ours = LogMel()(x)
    assert ours.shape == (4, 1, 64, 96)
    alike(ours[:, 0], (theirs(x) + EPS).log())


@pytest.mark.parametrize("samples", [0, 1, 159, 160, 512, 513])
def test_a_sound_too_short_to_be_reflected_is_followed_by_silence(samples):
    x = sounds(700)[:3, :samples]
    ours = LogMel()(torch.from_numpy(x))
    assert ours.shape == (3, 1, 64, 1 + samples // 160)
    padded = np.pad(x, [(0, 0), (0, max(0, 513 - samples))])
    alike(ours[:, 0], np.stack([reference(wave) for wave in padded])[:, :, : 1 + samples // 160])


def test_a_sounds_log_mels_do_not_depend_on_its_neighbours():
    x = torch.from_numpy(sounds(2000)).repeat(10, 1)
    assert torch.allclose(LogMel()(x)[37], LogMel()(x[37:38])[0], rtol=0, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(LogMel()(x), LogMel()(x.clone()))
        assert LogMel()(x).dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"f_max": 8001}, "f_max 8001 Hz is above half the rate of 16,000 Hz; give 8000 Hz or less"),
        ({"f_min": 8000}, "f_min 8000 and f_max 7800 are no range"),
        ({"f_min": -1}, "f_min -1 and f_max 7800 are no range"),
        ({"window": 2048}, "a window of 2048 samples is longer than fft 1024"),
        ({"fft": 1025}, "fft 1025 is odd, so that a frame has no sample in its middle; give 1026"),
        ({"hop": 0}, "hop 0 is not above 0"),
        ({"eps": 0.0}, "eps 0.0 is not above 0"),
        ({"bands": 300}, "bands 300 are too many for fft 1024: no frequency of it lies in band"),
    ],
)
def test_a_front_end_that_cannot_be_is_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        FrontEnd(**settings)
    assert "\n" not in str(error.value)


def test_waveforms_of_another_shape_are_one_sentence():
    with pytest.raises(ValueError, match=r"the shape \(2, 1, 900\); give \(batch, samples\)"):
        LogMel()(torch.zeros(2, 1, 900))
