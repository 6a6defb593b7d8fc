"""What an encoder of sound hears at every moment: its frames of features, what lies between two of them, and all of them pooled.

A sound goes through the network in stretches, so that one of a day takes the memory of a minute.

A frame of features belongs to the middle of the frames of the spectrogram that it was made of: these are 40 ms apart in BYOL-A's
second version, and 80 ms in its first. At a time between two of them it is interpolated, beyond the ends the nearest one is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol.data import Source
from byol.data.sound_clips import Waves, frames_at
from byol.data.sound_reader import part
from byol.encoders import Encoder, SoundInput, log_mel

Timed = tuple[NDArray[np.int64], NDArray[np.float32]]  # (t,) ms, (t, D)

STRETCH = 60  # s of a sound that go through the network at once
_ROWS = 1 << 22  # numbers that are interpolated at once


@runtime_checkable
class Framed(Protocol):
    """A network whose features of a sound are those of its frames, pooled over time."""

    @property
    def stride(self) -> int:
        """Frames of the spectrogram for one frame of features, which sees less than as many more on both sides."""
        ...

    def frames(self, x: Tensor) -> Tensor:
        """(B, 1, bands, T) normalised log-mel -> (B, T // stride, D)"""
        ...

    def pooled(self, peak: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """(B, D) of all frames: their maximum, mean and deviation (of all, not n - 1) -> (B, dim)."""
        ...


@dataclass(frozen=True)
class Ear:
    """The parts of an encoder that give features over time."""

    net: Framed
    input: SoundInput

    @classmethod
    def of(cls, encoder: Encoder) -> Ear:
        """Those of this encoder; ValueError if it has none."""
        if not isinstance(encoder.input, SoundInput) or not isinstance(encoder.net, Framed):
            raise ValueError(f"{encoder.name} gives no features over time; give an encoder of sound, such as byol-a-v2")
        return cls(encoder.net, encoder.input)

    @property
    def period(self) -> float:
        """ms from one frame of the spectrogram to the next."""
        return 1000 * self.input.hop / self.input.rate

    def places(self, times: Tensor) -> Tensor:
        """(t,) ms -> (t,) where they lie among the frames of features, the first of which is 0."""
        stride = self.net.stride
        return (times / self.period - (stride - 1) / 2) / stride

    def first_at(self, place: int, hop: int) -> int:
        """The number of the first timestamp at this place or after it."""
        stride = self.net.stride
        return max(0, ceil((place * stride + (stride - 1) / 2) * self.period / hop))

    def frames(self, samples: int) -> int:
        """Frames of features of so many samples, at the rate of the encoder."""
        return self.input.front.frames(max(samples, self.input.unit)) // self.net.stride

    def stretches(self, samples: int) -> list[tuple[int, int]]:
        """The first frame of features of each stretch, and the one after its last."""
        whole, size = self.frames(samples), self.frames(STRETCH * self.input.rate)
        starts = [size * n for n in range(max(1, whole // size))]  # the last takes what is left over: a short one would be padded
        return list(zip(starts, [*starts[1:], whole], strict=True))


def check_hop(hop: int) -> None:
    """ValueError for what is no time between two moments."""
    if isinstance(hop, bool) or not isinstance(hop, int) or hop < 1:
        raise ValueError(f"a hop of {hop} ms is not possible; give a whole number of milliseconds, 1 or more")


def timestamps(samples: int, rate: int, hop: int) -> Tensor:
    """(t,) float64 ms: 0, hop, 2 hop ... up to the end of so many samples; each from its number, so that none drifts."""
    return torch.arange(_count(samples, rate, hop), dtype=torch.float64) * hop


def interpolated(y: Tensor, at: Tensor) -> Tensor:
    """(n, T, D), (t,) places between 0 and T - 1 -> (n, t, D), linear between neighbours; beyond an end what is there."""
    at = at.clamp(0, y.shape[1] - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=y.shape[1] - 1)
    share = (at - low).to(y)[:, None]
    low, high = low.to(y.device), high.to(y.device)
    return y[:, low] * (1 - share) + y[:, high] * share


def along(encoder: Encoder, source: Source, index: int, hop: int, *, device: torch.device, precision: str = "fp32") -> Iterator[Timed]:
    """A sound of the source -> its features every `hop` ms, in stretches; of a day no more than a stretch is in memory.

    Equal, but for rounding, to interpolating between the frames of the whole. The encoder has to be in evaluation mode on the
    device. Raises Unreadable, which can be after some of the stretches.
    """
    ear, clip = Ear.of(encoder), _Clip(source, index, int(source.headers.width[index]))
    samples = frames_at(clip.frames, clip.rate, ear.input.rate)
    whole, count = ear.frames(samples), _count(samples, ear.input.rate, hop)
    rows = max(1, _ROWS // encoder.dim)
    for first, after in ear.stretches(samples):
        begin = ear.first_at(first, hop) if first else 0
        end = count if after == whole else ear.first_at(after, hop)
        if begin == end:
            continue
        y = _features(ear, clip, samples, first, min(after + 1, whole), device, precision)
        for at in range(begin, end, rows):
            times = np.arange(at, min(at + rows, end), dtype=np.int64) * hop
            yield times, interpolated(y, ear.places(torch.from_numpy(times).double()) - first)[0].cpu().numpy()


def as_one(
    encoder: Encoder, source: Source, index: int, samples: int, *, device: torch.device, precision: str = "fp32"
) -> Iterator[Tensor]:
    """The first `samples` of a sound of the source, silence beyond its end -> after each stretch (D,) float32, the features up to there.

    The last are, but for rounding, those of all of it at once. Otherwise as `along`.
    """
    ear, clip = Ear.of(encoder), _Clip(source, index, samples)
    heard = frames_at(clip.frames, clip.rate, ear.input.rate)
    peak, total, squares = torch.tensor(-torch.inf), torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for first, after in ear.stretches(heard):
        y = _features(ear, clip, heard, first, after, device, precision).cpu().double()  # some devices have no float64
        peak = torch.maximum(peak, y.amax(1))
        total, squares = total + y.sum(1), squares + y.square().sum(1)
        mean = total / after
        yield ear.net.pooled(peak, mean, (squares / after - mean.square()).clamp(min=0).sqrt())[0].float()


@torch.inference_mode()
def _features(ear: Ear, clip: _Clip, samples: int, first: int, after: int, device: torch.device, precision: str) -> Tensor:
    """(1, after - first, D) float32: these frames of features, of no more of the sound than they are made of.

    A frame of features sees less than one further on both sides, and a frame of the spectrogram half a transform: with both the
    frames are those of the whole sound.
    """
    stride, hop = ear.net.stride, ear.input.hop
    margin = ceil(ear.input.fft / 2 / hop)
    low, high = max(0, stride * (first - 1)), stride * (after + 1)  # of the spectrogram
    begin = max(0, low - margin)
    wave = part(clip, ear.input.rate, begin * hop, min(samples, (high + margin) * hop))
    x = log_mel(torch.from_numpy(np.ascontiguousarray(wave))[None].to(device), ear.input)[..., low - begin : high - begin]
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        y = ear.net.frames(x).float()
    return y[:, first - low // stride : after - low // stride]


def _count(samples: int, rate: int, hop: int) -> int:
    return samples * 1000 // (rate * hop) + 1


class _Clip:
    """A sound of a source, as one of so many frames that can be resampled in parts; silence beyond its end."""

    channels = 1

    def __init__(self, source: Source, index: int, frames: int) -> None:
        self._source, self._index = source, index
        self.rate, self.frames = source.rate, frames

    def read(self, start: int, count: int) -> Waves:
        """(count, 1)"""
        found: Waves = self._source.window(self._index, start, count)[0]
        return found
