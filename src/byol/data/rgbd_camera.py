"""From a picture of colour and one of depth to a square of colours and points in space."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from byol.data.rgbd_texts import read_numbers
from byol.data.source import Unreadable, shown

Floats = npt.NDArray[np.float32]
Focal = tuple[float, float, float, float]  # fx, fy, cx, cy in pixels; the middle of the first pixel is 0

FAR: Final = 10.0  # metres; what is said to be farther is taken for no depth
_NONE: Final = 65_535  # no depth, in 7-Scenes
_FILES: Final = ("intrinsics.txt", "intrinsic.txt", "camera-intrinsics.txt", "intrinsic/intrinsic_depth.txt")
_COLOUR: Final = "intrinsic/intrinsic_color.txt"
# Of 640 x 480: what the makers of a data set, which has no such file, say of its camera.
_KNOWN: Final[dict[str, Focal]] = {"7-Scenes": (585.0, 585.0, 320.0, 240.0), "TUM": (525.0, 525.0, 319.5, 239.5)}


class Camera(NamedTuple):
    """How a sequence was taken."""

    focal: Focal  # of the pictures of depth
    size: tuple[int, int]  # their width and height
    unit: float  # metres of a step of depth
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # what depth sees of the colour: left, top, right, bottom, in shares


def camera_of(root: Path, folder: str, layout: str, unit: float, depth: tuple[int, int], colour: tuple[int, int]) -> tuple[Camera, str]:
    """The camera of a sequence, by the files in its folder or above, up to the root; the sizes of its pictures, (width, height).

    The text says what was assumed. ValueError where nothing says what the camera is like.
    """
    file = _file(root, folder)
    if file is None:
        if layout not in _KNOWN:
            raise ValueError(
                f"{shown(str(root / folder))}: its camera is not known; add intrinsics.txt with three lines, fx 0 cx, 0 fy cy and 0 0 1, "
                f"in pixels of its pictures of depth ({depth[0]}x{depth[1]})"
            )
        focal = scaled(_KNOWN[layout], (640, 480), depth)
        return Camera(focal, depth, unit), f"no intrinsics.txt: the camera that {layout} documents, {_said(focal)}"
    focal = _focal(file)
    if file.name == "intrinsic_depth.txt":
        beside = file.parents[1] / _COLOUR
        box = _box(focal, depth, _focal(beside), colour) if beside.exists() else Camera._field_defaults["box"]
        return Camera(_within(file, focal, depth), depth, unit, box), ""
    if depth == colour or abs(2 * focal[2] / depth[0] - 1) <= abs(2 * focal[2] / colour[0] - 1):
        return Camera(_within(file, focal, depth), depth, unit), ""
    note = f"{file.name} is taken to be of the colour, {colour[0]}x{colour[1]}: its middle fits that"
    return Camera(_within(file, scaled(focal, colour, depth), depth), depth, unit), note


def scaled(focal: Focal, old: tuple[int, int], new: tuple[int, int]) -> Focal:
    """The same camera with pictures of another (width, height)."""
    x, y = new[0] / old[0], new[1] / old[1]
    fx, fy, cx, cy = focal
    return fx * x, fy * y, (cx + 0.5) * x - 0.5, (cy + 0.5) * y - 0.5


def sample(colour: npt.NDArray[np.uint8], depth: npt.NDArray[np.uint16], camera: Camera, side: int) -> Floats:
    """(H', W', 3), (H, W) -> (side, side, 6): red, green, blue in [0, 1]; x, y, z in metres, right, down, forward, or 0, 0, 0.

    All that the depth camera saw is squeezed into the square. A colour is the mean over its area; a point is that of the picture's
    pixel in the middle, where that pixel is, so that no point is made up.
    """
    out = np.empty((side, side, 6), np.float32)
    out[..., :3] = area(colour, camera.box, side)
    out[..., 3:] = points(depth, camera, side)
    return out


def points(depth: npt.NDArray[np.uint16], camera: Camera, side: int) -> Floats:
    """(H, W) steps -> (side, side, 3) metres, 0 where nothing is known."""
    height, width = depth.shape
    if (width, height) != camera.size:
        raise Unreadable(f"depth of {width}x{height} where the sequence has {camera.size[0]}x{camera.size[1]}")
    rows, columns = (((np.arange(side) + 0.5) * n / side).astype(np.int64) for n in (height, width))
    steps = depth[rows[:, None], columns]
    z = np.where((steps == 0) | (steps == _NONE) | (steps * camera.unit > FAR), 0, steps * camera.unit)
    fx, fy, cx, cy = camera.focal
    return np.stack([(columns - cx) / fx * z, (rows[:, None] - cy) / fy * z, z], -1).astype(np.float32)


def area(colour: npt.NDArray[np.uint8], box: tuple[float, float, float, float], side: int) -> Floats:
    """(H, W, 3) of 8 bit -> (side, side, 3) in [0, 1]: the mean over equal parts of the box; beyond an edge its last pixels go on."""
    height, width, _ = colour.shape
    across, down = _overlaps(width, side, box[0], box[2]), _overlaps(height, side, box[1], box[3])
    lines = down @ (colour.reshape(height, -1) * np.float32(1 / 255))
    found: Floats = np.einsum("yxc,sx->ysc", lines.reshape(side, width, 3), across, optimize=True)
    return found.clip(0, 1)


def _overlaps(pixels: int, side: int, low: float, high: float) -> Floats:
    """(side, pixels): the share that each pixel has of each of `side` equal parts of low..high, in shares of the picture."""
    edges = (low + (high - low) * np.arange(side + 1) / side) * pixels
    edges = np.clip(edges, 0, pixels)
    first, last = edges[:-1, None], edges[1:, None]
    # A part beyond the picture is a sliver at its edge.
    first, last = np.minimum(first, pixels - 1e-3), np.maximum(last, 1e-3)
    last = np.maximum(last, first + 1e-3)
    places = np.arange(pixels)
    found = np.clip(np.minimum(last, places + 1) - np.maximum(first, places), 0, None)
    shares: Floats = (found / found.sum(1, keepdims=True)).astype(np.float32)
    return shares


def _box(depth: Focal, of_depth: tuple[int, int], colour: Focal, of_colour: tuple[int, int]) -> tuple[float, float, float, float]:
    """Where the edges of the depth picture lie in the colour picture, in shares of it."""
    found = []
    for axis in (0, 1):
        for edge in (-0.5, of_depth[axis] - 0.5):
            place = (edge - depth[2 + axis]) / depth[axis] * colour[axis] + colour[2 + axis]
            found.append((place + 0.5) / of_colour[axis])
    return found[0], found[2], found[1], found[3]


def _file(root: Path, folder: str) -> Path | None:
    parts = folder.rstrip("/").split("/") if folder else []
    for depth in range(len(parts), -1, -1):
        at = root.joinpath(*parts[:depth])
        for name in _FILES:
            if (at / name).is_file():
                return at / name
    return None


def _focal(file: Path) -> Focal:
    """fx, fy, cx, cy of a text with 4 numbers, a 3 x 3 or a 4 x 4 matrix."""
    numbers = read_numbers(file)
    places = {4: (0, 1, 2, 3), 9: (0, 4, 2, 5), 16: (0, 5, 2, 6)}.get(len(numbers))
    if places is None:
        raise ValueError(f"{shown(str(file))} is no camera: it has {len(numbers)} numbers; give the 9 of fx 0 cx, 0 fy cy, 0 0 1")
    fx, fy, cx, cy = (numbers[i] for i in places)
    if not (1 <= fx < 1e6 and 1 <= fy < 1e6 and abs(cx) < 1e6 and abs(cy) < 1e6):
        raise ValueError(f"{shown(str(file))} is no camera: {_said((fx, fy, cx, cy))}; give the focal lengths and the middle in pixels")
    return fx, fy, cx, cy


def _within(file: Path, focal: Focal, size: tuple[int, int]) -> Focal:
    if 0 <= focal[2] <= size[0] and 0 <= focal[3] <= size[1]:
        return focal
    raise ValueError(
        f"{shown(str(file))}: the middle, {focal[2]:g} {focal[3]:g}, is outside its pictures of {size[0]}x{size[1]}; "
        "give the camera in pixels of the pictures of depth"
    )


def _said(focal: Focal) -> str:
    return f"fx {focal[0]:g}, fy {focal[1]:g}, cx {focal[2]:g}, cy {focal[3]:g}"
