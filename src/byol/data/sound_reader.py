"""Clips at one rate, mono, whole or in part: a part costs as much as it is long, however long the file is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import gcd
from types import ModuleType
from typing import Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from byol.data.compact import Integers
from byol.data.decode import file_error
from byol.data.patience import Patience, Waited
from byol.data.sound_clips import Clip, Clips, Waves, frames_at
from byol.data.source import Pixels, Unreadable, cut

Mono: TypeAlias = npt.NDArray[np.float32]  # (frames,)
Result = TypeVar("Result")

QUALITY: Final = "HQ"  # of soxr: 20 bits
CACHE: Final = 256 << 20  # bytes; a source whose clips all fit is kept in memory
MARGIN: Final = 256  # frames at the lower of the two rates: the filter of HQ is below 1e-6 from 92 on
BLOCK: Final = 1 << 18  # values that are decoded at once


@dataclass(eq=False)
class SoundReader:
    """(1, frames, 1) float32 in [-1, 1] of every clip: the mean of its channels, resampled to `rate`."""

    clips: Clips
    rate: int  # Hz
    frames: Integers  # (N,) of each clip, at `rate`
    patience: Patience = field(init=False, compare=False, repr=False)
    _kept: dict[int, Pixels] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.patience = Patience(self.clips.folder)
        self._small = 4 * int(self.frames.sum(dtype=np.int64)) <= CACHE

    def __reduce__(self) -> tuple[type[SoundReader], tuple[Clips, int, Integers]]:
        return SoundReader, (self.clips, self.rate, self.frames)

    def read(self, index: int, shrink: int = 1) -> Pixels:
        """(1, T, 1), T the frames of the clip; a copy. Sounds do not shrink."""
        return self._whole(index).copy() if self._small else self._decode(index)

    def window(self, index: int, start: int, frames: int) -> Pixels:
        """(1, frames, 1) from frame `start` on, zeros beyond the ends; equal to that part of `read` to 1e-5."""
        if self._small:
            return cut(self._whole(index), start, frames)
        out = np.zeros((1, frames, 1), np.float32)
        low, high = max(0, start), min(start + frames, int(self.frames[index]))
        if low < high:
            out[0, low - start : high - start, 0] = self._opened(index, lambda clip: part(clip, self.rate, low, high)).clip(-1, 1)
        return out

    def waited(self) -> list[Waited]:
        """What had to be waited for since this was asked last."""
        return self.patience.waited()

    def _whole(self, index: int) -> Pixels:
        """The clip as it is kept. Two threads may decode it at once, which gives the same twice."""
        kept = self._kept.get(index)
        return self._kept.setdefault(index, self._decode(index)) if kept is None else kept

    def _decode(self, index: int) -> Pixels:
        return self._opened(index, lambda clip: whole(clip, self.rate))[None, :, None]

    def _opened(self, index: int, work: Callable[[Clip], Result]) -> Result:
        def opened() -> Result:
            with self.clips.clip(index) as clip:
                if frames_at(clip.frames, clip.rate, self.rate) != self.frames[index]:
                    raise Unreadable("another length than its header said at first")
                return work(clip)

        try:
            return self.patience.read(self.clips.names[index], self.clips.place(index), opened)
        except OSError as error:
            raise Unreadable(file_error(error)) from error


def blocks(clip: Clip) -> Iterator[Waves]:
    """All of a clip, (frames, channels) at a time, so that hours of it take little memory."""
    size = max(1, BLOCK // clip.channels)
    for start in range(0, clip.frames, size):
        yield clip.read(start, min(size, clip.frames - start))


def mono(waves: Waves) -> Mono:
    """(frames, channels) -> (frames,): their mean."""
    return waves[:, 0] if waves.shape[1] == 1 else waves.mean(1, dtype=np.float32)


def whole(clip: Clip, rate: int) -> Mono:
    """(frames at `rate`,) in [-1, 1]; raises Unreadable."""
    out = np.zeros(frames_at(clip.frames, clip.rate, rate), np.float32)
    at = 0
    for wave in _resampled(clip, rate):
        wave = wave[: len(out) - at]
        out[at : at + len(wave)] = wave
        at += len(wave)
    return np.clip(out, -1, 1, out=out)


def _resampled(clip: Clip, rate: int) -> Iterator[Mono]:
    if clip.rate == rate:
        yield from map(mono, blocks(clip))
        return
    stream = _soxr().ResampleStream(clip.rate, rate, 1, dtype="float32", quality=QUALITY)
    for waves in blocks(clip):
        yield stream.resample_chunk(mono(waves))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def part(clip: Clip, rate: int, start: int, stop: int) -> Mono:
    """(stop - start,) frames of `whole`, but not kept within [-1, 1], decoded and resampled alone; raises Unreadable."""
    if clip.rate == rate:
        return mono(clip.read(start, stop - start))
    # Resampling begins where a frame of the one rate falls on a frame of the other: there, both have the same phase.
    step = gcd(clip.rate, rate)
    before, after = clip.rate // step, rate // step
    margin = -(-MARGIN * max(clip.rate, rate) // rate)
    period = max(0, start * clip.rate // rate - margin) // before
    first = period * before
    last = min(clip.frames, -(-stop * clip.rate // rate) + margin)
    wave = _soxr().resample(mono(clip.read(first, last - first)), clip.rate, rate, quality=QUALITY)
    found: Mono = wave[start - period * after : stop - period * after]
    return np.pad(found, (0, stop - start - len(found)))


def _soxr() -> ModuleType:
    try:
        return importlib.import_module("soxr")
    except ImportError as error:
        raise ValueError("sounds of another rate are resampled by soxr, which is not installed; pip install 'byol[audio]'") from error
