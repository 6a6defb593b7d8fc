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
