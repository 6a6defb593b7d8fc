"""Sounds: windows of them as log-mel spectrograms. A picture has time to the right and pitch upwards; the lighter, the louder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from byol import dist, rng, views
from byol.data import Source, Statistics, Unreadable, cut
from byol.encoders import AnyInput, SoundInput, resampled, spectrogram
from byol.logmel import EPS, FrontEnd, LogMel
from byol.views.changes import Change, Take
from byol.views.sound_norm import statistics
from byol.views.sounds import PLANS, SoundViews, load
from byol.views.sounds import Pipeline as Pipeline

Raw = NDArray[np.generic]
MEASURED = 2_000  # windows that the statistics are of at most
LEAST = 0.2  # seconds of a window, which the deepest encoder takes with a margin
_BLACK, _WHITE = -2.0, 3.0  # deviations from the mean
_SECONDS = 10  # of a sound that are shown at most


def names() -> list[str]:
    """BYOL-A's two versions."""
    return list(PLANS)


def plan(
    name: str, source: Source, size: int, *, takes: Sequence[Take] | None, compiled: bool | None, changes: Mapping[str, Change]
) -> SoundViews:
    """The named plan at the rate of the data; there is nothing to compile. ValueError for a window of silence for the most part."""
    found = load(name, front=FrontEnd.at(source.rate), takes=takes, **changes)
    longest = float(source.headers.width.max()) / source.rate
    if "seconds" in changes and found.pipeline.seconds > max(Pipeline.seconds, 2 * longest):
        raise ValueError(f"seconds {found.pipeline.seconds:g} is over twice the longest sound of {source.spec}, {longest:.2g} s; give less")
    return found


def measured(source: Source, front: FrontEnd | None = None) -> Statistics:
    """Of the log-mels of windows of 0.95 s, one of each sound, of at most MEASURED sounds drawn by a fixed seed.

    Sounds that are shorter have silence around them there, as in BYOL-A: of the digits that docs/sound.md tells of, features were worth
    more than with statistics of the sounds alone. Height and width are the frames of their mean length, at which they are evaluated, at
    most those of a window. `front`: how the log-mels are made; None: as is usual at the rate of the data.
    """
    plan = load("byol-a-v1", front=FrontEnd.at(source.rate))
    ids = rng.permuted(0, 0, len(source), torch.arange(min(MEASURED, len(source))), rng.STREAM_SAMPLE)
    logmel = plan.logmel if front is None else LogMel(front)
    waves = (torch.from_numpy(resampled(x.numpy(), source.rate, logmel.front.rate)) for x in _windows(source, plan, ids))
    mean, std = statistics(waves, logmel)
    if std <= EPS:
        raise ValueError(f"{source.spec}: all of {len(ids):,} sounds are silent, so that there is nothing to learn from; give others")
    mean_length = max(LEAST * source.rate, float(source.headers.width.mean()))
    frames = float(min(plan.shape[1], plan.front.frames(round(mean_length))))
    return Statistics(mean=(mean,), std=(std,), low=0.0, high=1.0, height=frames, width=frames, count=len(ids))


def _windows(source: Source, plan: SoundViews, ids: Tensor) -> Iterator[Tensor]:
    """(B, samples) of the sounds that can be read; ValueError where none can."""
    lengths = torch.from_numpy(source.headers.width[ids.numpy()].astype(np.int64))
    starts = plan.windows(lengths, ids, 0, 0)
    read, reason = 0, ""
    for part in torch.split(torch.stack([ids, starts], 1), 64):
        waves = []
        for index, start in part.tolist():
            try:
                waves.append(source.window(index, start, plan.samples)[0, :, 0])
            except Unreadable as error:
                reason = reason or str(error)
        read += len(waves)
        if waves:
            yield torch.from_numpy(np.stack(waves))
    if not read:
        raise ValueError(f"{source.spec}: none of {len(ids):,} sounds can be decoded (first: {reason}); byol doctor {source.spec} says why")


def input_of(plan: views.Plan, source: Source, size: int, stats: Statistics) -> SoundInput:
    """The spectrogram that the views are made of."""
    assert isinstance(plan, SoundViews)
    return SoundInput.of(plan.front, mean=stats.mean[0], std=stats.std[0], frames=plan.shape[1])


def own_input(source: Source) -> SoundInput:
    """What an encoder sees that no run has fixed."""
    return input_of(load("byol-a-v1", front=FrontEnd.at(source.rate)), source, 0, measured(source))


def sample(source: Source, index: int) -> Raw:
    """(1, T, 1): at most its first 10 s."""
    return source.window(index, 0, min(int(source.headers.width[index]), _SECONDS * source.rate))


def visible(raw: Raw, input: AnyInput | None) -> Raw:
    """(1, T, 1) -> (S, S, 1), grey."""
    seen = input if isinstance(input, SoundInput) else SoundInput(mean=-8.0, std=5.0)
    wave = torch.from_numpy(raw[0, :, 0].astype(np.float32))[None]
    return _square(seen.normalise(spectrogram(wave, seen)), seen.frames)[0].permute(1, 2, 0).numpy()


def seen(plan: views.Plan, source: Source, raws: Sequence[Raw], ids: Tensor, seed: int, epoch: int, input: AnyInput) -> Tensor:
    """(V, B, 1, S, S): the views, with these sounds themselves in the bank that is mixed in from."""
    assert isinstance(plan, SoundViews)
    assert isinstance(input, SoundInput)
    starts = plan.windows(torch.from_numpy(source.headers.width[ids.numpy()].astype(np.int64)), ids, seed, epoch).tolist()
    windows = (_window(source, index, raw, at, plan.samples) for index, raw, at in zip(ids.tolist(), raws, starts, strict=True))
    waves = torch.from_numpy(np.stack([window[0, :, 0] for window in windows]))
    state = plan.state((input.mean, input.std))
    with dist.apart():  # the first of several processes looks at them alone
        plan.device(waves, ids, seed, epoch, state)
        made = plan.device(waves, ids, seed, epoch, state)
    return torch.stack([_square(view, max(plan.shape)) for view in made])


def _window(source: Source, index: int, raw: Raw, start: int, samples: int) -> Raw:
    """(1, samples, 1) of a sound; where it cannot be read there, of what was read of it."""
    try:
        return source.window(index, start, samples)
    except Unreadable:
        return cut(raw, start, samples)


def note(source: Source) -> str:
    """What a picture is."""
    return "Each picture is a log-mel spectrogram: time to the right, pitch upwards; the lighter, the louder."


def _square(x: Tensor, side: int) -> Tensor:
    """(B, 1, F, T) normalised -> (B, 1, S, S) in [0, 1], low bands below."""
    shown = ((x - _BLACK) / (_WHITE - _BLACK)).clamp(0, 1).flip(2)
    return interpolate(shown, (side, side), mode="bilinear", antialias=True, align_corners=False)
