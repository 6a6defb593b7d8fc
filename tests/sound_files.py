"""Makes sound files for the tests: tones with noise, in any format, rate and number of channels."""

from pathlib import Path

import numpy as np
import soundfile


def wave(frames, rate=16_000, channels=1, seed=0):
    """(frames, channels) of float32 within (-1, 1): a rising tone and noise in each channel, so that no part is like another."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames) / rate
    tones = [0.4 * np.sin(2 * np.pi * (200 + 50 * c + 100 * t) * t) for c in range(channels)]
    return (np.stack(tones, 1) + 0.1 * rng.standard_normal((frames, channels))).clip(-0.95, 0.95).astype(np.float32)


def write(path, frames=1_600, rate=16_000, channels=1, seed=0, samples=None, **options):
    """Writes a sound file, making folders as needed; the suffix is the format. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave(frames, rate, channels, seed) if samples is None else samples, rate, **options)
    return path


CLASSES = {"low": 220, "middle": 660, "high": 1980}
SMALL = ("encoder=audio-small-c4-d16", "hidden=32", "dim=16", "memory=12", "seconds=0.2", "precision=fp32")  # of a run that takes a second


def tone(hertz, frames, rate, seed):
    """(frames,) of float32: a tone in noise."""
    noise = np.random.default_rng(seed).standard_normal(frames)
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(frames) / rate) + 0.05 * noise).astype(np.float32)


def tones(folder, n=36):
    """A folder of n sounds of 0.1 to 0.4 s in three class folders, shorter and longer than a window of SMALL."""
    for i in range(n):
        name, hertz = list(CLASSES.items())[i % 3]
        frames = 1600 + 4800 * i // n
        write(folder / name / f"{i:02}.wav", rate=16_000, samples=tone(hertz, frames, 16_000, i))
    return folder
