"""Two clouds in one picture: a z-buffer in NumPy, from where the second camera was and from aside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from byol.geometry import move
from byol.registration.task import Frame

Floats = NDArray[np.float64]
RGB = NDArray[np.uint8]  # (H, W, 3)
# Okabe and Ito's blue and vermilion, which every eye tells apart, on a paper that suits light and dark pages.
HUES = np.array([[0, 114, 178], [213, 94, 0]]) / 255
PAPER = 0.96
_DEGREES = {"from the camera": (0.0, 0.0), "from aside": (50.0, 30.0)}  # about the vertical, then the horizontal
VIEWS = tuple(_DEGREES)


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points with a colour each."""

    points: Floats  # (n, 3) metres: right, down, forward
    colours: Floats  # (n, 3) in [0, 1]


def together(R: Tensor, t: Tensor, a: Frame, b: Frame) -> Cloud:
    """The first frame's points moved to the second's: blue and vermilion, each as light as the surface is."""
    points = [move(R, t, a.points).double().numpy(), b.points.double().numpy()]
    light = [0.25 + 0.9 * f.colours.double().numpy().mean(1, keepdims=True) for f in (a, b)]
    return Cloud(np.concatenate(points), np.concatenate([hue * part for hue, part in zip(HUES, light, strict=True)]).clip(0, 1))


def drawn(cloud: Cloud, view: str, size: int) -> RGB:
    """(size, size, 3): what a pinhole camera sees of the cloud; each point covers a square, the nearest is in front."""
    out = np.full((size, size, 3), PAPER)
    x, y, z = _turned(cloud.points, *_DEGREES[view]).T
    seen = np.flatnonzero(z > 0.1)
    far_first = seen[np.argsort(-z[seen], kind="stable")]
    scale = 0.85 * size  # pixels a metre, at one metre
    wide = max(1, round(size / 90))
    columns, rows = (np.floor(scale * part[far_first] / z[far_first] + size / 2).astype(np.int64) for part in (x, y))
    for down in range(wide):
        for right in range(wide):
            r, c = rows + down, columns + right
            inside = (r >= 0) & (r < size) & (c >= 0) & (c < size)
            out[r[inside], c[inside]] = cloud.colours[far_first[inside]]  # the last one written stays: the nearest
    picture: RGB = np.rint(255 * out).astype(np.uint8)
    return picture


def _turned(points: Floats, across: float, down: float) -> Floats:
    """(n, 3) -> the same for a camera that walked so many degrees around the middle of the cloud, and a little back."""
    if not len(points):
        return points
    middle = np.median(points, 0)
    a, d = np.radians([across, down])
    about_vertical = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    about_horizontal = np.array([[1, 0, 0], [0, np.cos(d), -np.sin(d)], [0, np.sin(d), np.cos(d)]])
    turned: Floats = (points - middle) @ about_vertical.T @ about_horizontal.T + middle + [0, 0, 0.6 if across or down else 0]
    return turned
