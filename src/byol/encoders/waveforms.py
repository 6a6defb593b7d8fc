"""From sound of any kind to what an encoder hears: one channel at its rate, a log-mel spectrogram, normalised."""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from byol.encoders.sound_input import SoundInput
from byol.logmel import ConvolvedLogMel, LogMel

Waves: TypeAlias = NDArray[np.float32]

_FEW = 8  # an axis of so many or fewer, beside a longer one, is channels and not samples
_FULL = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}  # what the loudest value of a type is


def preprocess(sounds: object, input: SoundInput, *, rate: int | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Sounds of one length -> (B, 1, bands, frames) float32 on the device, normalised.

    Paths and encoded bytes say their own rate; arrays and tensors are (samples,) or (N, samples) of `rate` Hz (None: the
    encoder's), floats in [-1, 1] or 16- and 32-bit integers. Channels are averaged, other rates resampled. What is shorter than
    the unit of training is followed by silence. ValueError for anything else.
    """
    listed = list(sounds) if isinstance(sounds, Sequence) and not isinstance(sounds, str | bytes) else [sounds]
    if not listed:
        raise ValueError("there are no sounds in the list; give one or more")
    waves = [_waves(sound, input, rate) for sound in listed]
    lengths = sorted({w.shape[1] for w in waves})
    if len(lengths) > 1:
        # Padding all to the longest would make what is heard of one depend on the others.
        raise ValueError(f"the sounds have {lengths[0]:,} to {lengths[-1]:,} samples; cut them to one length, or give them one by one")
    return log_mel(torch.cat(waves).to(device), input)


def log_mel(waves: Tensor, input: SoundInput) -> Tensor:
    """(B, samples) in [-1, 1] at the input's rate, on any device -> (B, 1, bands, frames) float32, normalised.

    What is shorter than the unit of training is followed by silence.
    """
    return input.normalise(spectrogram(waves, input))


def spectrogram(waves: Tensor, input: SoundInput) -> Tensor:
    """As `log_mel`, not normalised."""
    waves = pad(waves, (0, max(0, input.unit - waves.shape[1])))
    x: Tensor = _front(input, waves.device)(waves.float())
    return x


class FromWaveforms(nn.Module):
    """(B, samples) float32 in [-1, 1] at the input's rate, any number of either -> what `net` makes of their `log_mel`; for export."""

    def __init__(self, net: nn.Module, input: SoundInput) -> None:
        super().__init__()
        self.net, self.input, self.front = net, input, ConvolvedLogMel(input.front)

    def forward(self, waves: Tensor) -> Tensor:
        short = torch.sym_max(0, self.input.unit - waves.shape[1])  # as `max`, of a length that a graph leaves open
        y: Tensor = self.net(self.input.normalise(self.front(pad(waves, (0, short)))))  # type: ignore[arg-type]  # or an open length
        return y


@lru_cache(maxsize=8)
def _front(input: SoundInput, device: torch.device) -> nn.Module:
    return LogMel(input.front).to(device)


def _waves(sound: object, input: SoundInput, rate: int | None) -> Tensor:
    """One sound, or an array of them -> (N, samples) float32 at the input's rate."""
    if isinstance(sound, str | Path | bytes):
        found, rate = _decoded(sound)
    elif isinstance(sound, Tensor | np.ndarray):
        found = _plain(sound.detach().cpu().numpy() if isinstance(sound, Tensor) else sound)
    else:
        raise ValueError(f"a {type(sound).__name__} is no sound; give a path, an array, a tensor, or a list of them")
    if not np.isfinite(found).all():
        raise ValueError("a sound has values that are NaN or infinite; mend it, or leave it out")
    return torch.from_numpy(np.ascontiguousarray(resampled(found, input.rate if rate is None else rate, input.rate)))


def _plain(array: NDArray[np.generic]) -> Waves:
    """(samples,) or (N, samples) numbers of any type -> (N, samples) float32 in [-1, 1]."""
    x = array[None] if array.ndim == 1 else array
    if x.ndim != 2 or x.size == 0 or not (x.dtype.kind == "f" or x.dtype in _FULL):
        raise ValueError(f"an array of shape {array.shape} and type {array.dtype} is no sound; give (samples,) or (N, samples) floats")
    if x.shape[1] <= _FEW < x.shape[0]:
        raise ValueError(f"an array of shape {array.shape} seems to have its channels last; average them, or give (N, samples)")
    loudest = float(np.abs(x).max())
    if x.dtype.kind == "f" and loudest > 256:
        raise ValueError(f"a sound has values up to {loudest:g}, and floats are in [-1, 1]; divide them by the largest that there can be")
    scaled: Waves = np.divide(x, _FULL.get(x.dtype, 1.0), dtype=np.float32, casting="unsafe")
    return scaled


def _decoded(sound: str | Path | bytes) -> tuple[Waves, int]:
    """A file, or its bytes -> (1, samples) float32 in [-1, 1], channels averaged, and its rate."""
    soundfile = _package("soundfile")
    if not isinstance(sound, bytes) and not Path(sound).is_file():
        raise ValueError(f"{sound} cannot be read as sound: there is no such file")
    try:
        values, rate = soundfile.read(io.BytesIO(sound) if isinstance(sound, bytes) else str(sound), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        name = "the bytes" if isinstance(sound, bytes) else sound
        raise ValueError(f"{name} cannot be read as sound: {str(error).splitlines()[0]}") from error
    return values.mean(1, dtype=np.float32)[None], int(rate)


def resampled(x: Waves, rate: int, wanted: int) -> Waves:
    """(N, samples) at one rate -> (N, samples') float32 at another."""
    if rate == wanted:
        return x
    if rate < 1:
        raise ValueError(f"a rate of {rate} Hz is not possible; give samples a second")
    return np.asarray(_package("soxr").resample(x.T, rate, wanted), np.float32).T


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"sound from a file or of another rate needs the package {name}; install it with: pip install 'byol[audio]'"
        ) from error
