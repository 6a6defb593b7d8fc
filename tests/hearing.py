"""Sound for tests: waveforms, and files of them."""

import wave

import numpy as np
import torch


def tone(hz, seconds, rate=16_000, loud=0.5):
    """(samples,) float32."""
    return (loud * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(*shape, seed=0):
    """float32 in [-1, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def write_wav(path, x, rate=16_000):
    """(samples,) or (samples, channels) floats in [-1, 1] -> 16-bit PCM."""
    x = x if x.ndim == 2 else x[:, None]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(x.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.round(x * 32767).astype("<i2").tobytes())
    return path
