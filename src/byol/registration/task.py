"""Pairs of frames with known poses of the camera, and a frame as the points that it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol.data import Source, open_source
from byol.encoders import Encoder, Input, squeezed
from byol.geometry import between

_KEPT: Final = 64  # frames; those of a pair come again in later pairs
Thin = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Frame:
    """What one RGB-D frame shows: a point for every pixel with depth, or for some of them."""

    x: Tensor  # (6, S, S) as an encoder takes it
    points: Tensor  # (n, 3) float32, metres in the camera's coordinates
    colours: Tensor  # (n, 3) in [0, 1]
    pixels: Tensor  # (n,) int64, row * S + column
    camera: tuple[float, float, float, float]  # fx, fy, cx, cy in pixels

    @property
    def size(self) -> int:
        return self.x.shape[-1]


@dataclass(frozen=True)
class Pair:
    """Two frames, and the motion that takes points of the first camera to those of the second. It only scores."""

    first: int
    second: int
    name: str
    R: Tensor = field(compare=False)  # (3, 3) float64
    t: Tensor = field(compare=False)  # (3,) float64, metres


@dataclass(frozen=True, eq=False)
class Task:
    """Test frames, and which of them are registered to which."""

    data: Source  # that a network was, or would be, trained on
    frames: Source
    pairs: list[Pair]
    how: str  # where the test frames come from
    notes: tuple[str, ...]

    def source(self) -> Source:
        """The samples that say what input an encoder has to take."""
        return self.data

    def tested(self) -> Source:
        """The samples that are tested on."""
        return self.frames


class Frames:
    """The frames of a task as an encoder takes them, at a size of their own or the encoder's; the last ones stay in memory."""

    def __init__(self, source: Source, encoder: Encoder, size: int) -> None:
        self.source, self.input, self.size = source, encoder.images, size or encoder.images.size
        # Points that the network cannot tell apart have each other as their nearest, and would all be matched to the first.
        thin: Thin | None = getattr(encoder.net, "thin", None)
        self._kept = lru_cache(_KEPT)(lambda index: frame_of(source.read(index), self.input, self.size, thin))

    def __call__(self, index: int) -> Frame:
        """A frame with the points that the network tells apart; raises Unreadable."""
        return self._kept(index)

    def whole(self, index: int) -> Frame:
        """A frame with all of its points."""
        return frame_of(self.source.read(index), self.input, self.size)


def open_task(data: str, test: str | None, limit: int | None, *, apart: int, stride: int) -> Task:
    """The pairs of frames so far apart; ValueError for data that are no RGB-D frames, without poses, or too short."""
    train = open_source(data, limit=limit)
    frames = open_source(test, limit=limit) if test is not None else train
    return task_of(train, frames, apart=apart, stride=stride)


def task_of(train: Source, frames: Source, *, apart: int, stride: int) -> Task:
    """The same for data that are open."""
    for source in (train, frames):
        if source.modality != "rgbd":
            raise ValueError(f"{source.spec} has {source.words.many}, and registration is of RGB-D frames; give a folder with depth")
    if frames.poses is None or not np.isfinite(frames.poses).all((1, 2)).any():
        raise ValueError(f"{frames.spec} has no poses of the camera, which score a registration; add pose/NAME.txt, 4x4 camera to world")
    found = _partners(frames, apart, stride)
    if not found:
        longest = 1 + _longest(frames)
        raise ValueError(f"{frames.spec} has no two frames {apart} apart, its longest sequence is of {longest}; give apart=N, with less")
    known = [bool(np.isfinite(pose).all()) for pose in frames.poses]
    pairs = [_pair(frames, a, b, frames.poses) for a, b in found if known[a] and known[b]]
    if not pairs:
        raise ValueError(f"{frames.spec} has no two frames {apart} apart that both have a pose; give another apart=N")
    lost = len(found) - len(pairs)
    notes = [f"{lost} of {len(found)} pairs left out: a frame without a pose"] if lost else []
    return Task(train, frames, pairs, "all frames" if frames is train else frames.spec, tuple(notes))


def _partners(frames: Source, apart: int, stride: int) -> list[tuple[int, int]]:
    """(first, second): in each sequence from its first frame on, every `stride` frames, and the one `apart` later."""
    groups, times = _sequences(frames)
    at = {(int(g), int(t)): i for i, (g, t) in enumerate(zip(groups, times, strict=True))}
    start = {int(g): int(times[groups == g].min()) for g in np.unique(groups)}
    return [(i, at[g, t + apart]) for (g, t), i in sorted(at.items()) if (t - start[g]) % stride == 0 and (g, t + apart) in at]


def _sequences(frames: Source) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    assert frames.groups is not None  # RGB-D sources have both
    assert frames.times is not None
    return frames.groups, frames.times


def _longest(frames: Source) -> int:
    groups, times = _sequences(frames)
    return max((int(np.ptp(times[groups == g])) for g in np.unique(groups)), default=0)


def _pair(frames: Source, a: int, b: int, poses: NDArray[np.float64]) -> Pair:
    R, t = between(*(torch.from_numpy(poses[i]).double() for i in (a, b)))
    return Pair(a, b, f"{frames.names[a]} {frames.names[b]}", R, t)


def frame_of(raw: NDArray[np.generic], input: Input, size: int, thin: Thin | None = None) -> Frame:
    """(S0, S0, 6) colour and metres, 0 where there is no depth -> the frame at a size; its points stay as they were measured.

    `thin` (n, 3) -> (k,) says which of the points to take: those that a network tells apart.
    """
    found = squeezed(torch.from_numpy(np.asarray(raw, np.float32)).movedim(-1, 0)[None], size, 3)[0]
    pixels = (found[5] > 0).flatten().nonzero()[:, 0]
    colours, points = (part.flatten(1).T[pixels] for part in (found[:3], found[3:]))
    rows = thin(points) if thin is not None and len(points) else torch.arange(len(points))
    x, camera = input.normalise(input.scale(found[None]))[0], _camera(points.double(), pixels, size)
    return Frame(x, points[rows], colours[rows], pixels[rows], camera)


def _camera(points: Tensor, pixels: Tensor, size: int) -> tuple[float, float, float, float]:
    """The camera that shows the points where they are: column = fx x / z + cx, row = fy y / z + cy, by least squares.

    A point is that of the nearest pixel of a larger picture, so that the camera of the file would be some of a pixel off.
    """
    if not len(points):
        return 0.0, 0.0, 0.0, 0.0
    lines = []
    for axis, seen in ((0, pixels % size), (1, pixels // size)):
        known = torch.stack([points[:, axis] / points[:, 2], torch.ones(len(points), dtype=torch.float64)], 1)
        lines.append(torch.linalg.lstsq(known, seen.double()[:, None], driver="gelsd").solution[:, 0].tolist())
    (fx, cx), (fy, cy) = lines
    return fx, fy, cx, cy
