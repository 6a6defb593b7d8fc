"""RGB-D frames. A picture is colour beside depth; the lighter the depth, the nearer, and black where there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import rng, views
from byol.data import Source, Statistics, Unreadable, each
from byol.encoders import AnyInput, Input
from byol.views.changes import Change, Take
from byol.views.rgbd import POINTS, RgbdViews, load
from byol.views.rgbd import Pipeline as Pipeline
from byol.views.rgbd import names as names

Raw = NDArray[np.generic]
MEASURED = 1024  # frames that the statistics are of at most
REACH = 16.0  # metres either way; the range of values, so that a network sees points in metres
_BESIDE = 0.5  # grey, above and below the two pictures


def plan(
    name: str, source: Source, size: int, *, takes: Sequence[Take] | None, compiled: bool | None, changes: Mapping[str, Change]
) -> RgbdViews:
    """The named plan, which knows the sequences; there is nothing to compile."""
    if size > (side := int(source.headers.height[0])):
        raise ValueError(f"image_size={size} is more than the {side} px that frames are read at; give {side} or less")
    assert source.groups is not None
    assert source.times is not None
    return load(name, source.groups, source.times, size=size, takes=takes, **changes)


def measured(source: Source) -> Statistics:
    """Of red, green and blue where there is depth, of at most MEASURED frames drawn by a fixed seed."""
    drawn = rng.permuted(0, 0, len(source), torch.arange(min(MEASURED, len(source))), rng.STREAM_SAMPLE).tolist()
    sums = [s for s in each(lambda i: _sums(source, i), drawn) if s is not None]
    if not sums:
        raise ValueError(f"none of {len(drawn):,} frames of {source.spec} can be decoded; byol doctor {source.spec} says why")
    count, total, squares = (np.stack(part).sum(0) for part in zip(*sums, strict=True))
    mean = total / count
    std = np.sqrt((squares / count - mean**2).clip(0))
    side = float(source.headers.height[0])
    found = tuple(float(s) if s > 1e-6 else 1.0 for s in std)
    return Statistics(mean=tuple(map(float, mean)), std=found, low=0.0, high=1.0, height=side, width=side, count=len(sums))


def _sums(source: Source, index: int) -> tuple[NDArray[np.float64], ...] | None:
    """How many colours there are at points, their sum, and that of their squares; of all colours where no point is."""
    try:
        frame = source.read(index).reshape(-1, 6).astype(np.float64)
    except Unreadable:
        return None
    colours = frame[frame[:, 5] > 0, :3] if (frame[:, 5] > 0).any() else frame[:, :3]
    return np.array([float(len(colours))]), colours.sum(0), (colours**2).sum(0)


def input_of(plan: views.Plan, source: Source, size: int, stats: Statistics) -> Input:
    """Colours are standardised and points are in metres: the statistics are those of red, green and blue alone."""
    if len(stats.mean) != 3 or len(stats.std) != 3:
        raise ValueError(f"mean and std are of red, green and blue; give three numbers, not {len(stats.mean)} and {len(stats.std)}")
    span = 2 * REACH
    mean = (*((m + REACH) / span for m in stats.mean), *(0.5,) * POINTS)
    std = (*(s / span for s in stats.std), *(1 / span,) * POINTS)
    return Input(channels=source.channels, size=size, mean=mean, std=std, low=-REACH, high=REACH, points=POINTS)


def own_input(source: Source) -> Input:
    """What an encoder sees that no run has fixed: frames as they are read."""
    side = int(source.headers.height[0])
    return input_of(load("frames", np.zeros(2, np.int64), np.array([0, 20]), size=side), source, side, measured(source))


def sample(source: Source, index: int) -> Raw:
    """(S, S, 6), colours and points."""
    return source.read(index)


def visible(raw: Raw, input: AnyInput | None) -> Raw:
    """(S, S, 6) -> (2 S, 2 S, 3): colour on the left, depth on the right."""
    shown = _picture(torch.from_numpy(np.moveaxis(raw.astype(np.float32), 2, 0).copy())[None])[0].permute(1, 2, 0).numpy()
    if not isinstance(input, Input):
        return shown
    found: Raw = input.low + (input.high - input.low) * shown
    return found


def seen(plan: views.Plan, source: Source, raws: Sequence[Raw], ids: Tensor, seed: int, epoch: int, input: AnyInput) -> Tensor:
    """(V, B, 3, 2 S, 2 S): the views, of which each may be of another frame of the sequence."""
    assert isinstance(plan, RgbdViews)
    assert isinstance(input, Input)
    of = plan.partners(ids, seed, epoch)
    frames = dict(zip(ids.tolist(), raws, strict=True))
    frames |= {i: _read(source, i) for i in set(of.flatten().tolist()) if i not in frames}
    return torch.stack([_picture(torch.stack([_shown(frames[i], plan) for i in view])) for view in of.tolist()])


def _shown(raw: Raw, plan: RgbdViews) -> Tensor:
    """(H, W, 6) -> (6, S, S) of a view."""
    whole = torch.tensor([[0, 0, *raw.shape[:2]]])
    return plan.cut(raw, whole, (raw.shape[0], raw.shape[1]))[0]


def _read(source: Source, index: int) -> Raw:
    """A frame; grey and without depth where it cannot be read."""
    try:
        return source.read(index)
    except Unreadable:
        side = int(source.headers.height[0])
        return np.concatenate([np.full((side, side, 3), _BESIDE), np.zeros((side, side, 3))], 2).astype(np.float32)


def note(source: Source) -> str:
    """What a picture is."""
    return "Each picture is a frame, its colour on the left and its depth on the right: the lighter, the nearer; black where there is none."


def _picture(x: Tensor) -> Tensor:
    """(B, 6, S, S) colours and metres -> (B, 3, 2 S, 2 S) in [0, 1]."""
    side = x.shape[-1]
    out = torch.full((len(x), 3, 2 * side, 2 * side), _BESIDE)
    middle = slice(side // 2, side // 2 + side)
    out[:, :, middle, :side] = x[:, :3].clamp(0, 1)
    out[:, :, middle, side:] = heat(x[:, 5])
    return out


def heat(z: Tensor) -> Tensor:
    """(B, H, W) metres -> (B, 3, H, W): from white, near, over yellow and red to black, which is also where there is none."""
    warmth = torch.where(z > 0, 1 / (1 + z), 0.0)[:, None] * 3.6
    return torch.cat([warmth, warmth - 1, warmth - 2], 1).clamp(0, 1)
