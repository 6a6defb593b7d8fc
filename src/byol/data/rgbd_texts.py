"""The texts beside pictures of depth: matrices, TUM's lists of files and of poses; and what belongs together by its time."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

APART: Final = 0.02  # seconds between what belongs together, at most: as in TUM's own tools
_NEAR: Final = 64  # pictures within that time that are compared
_MOST: Final = 1 << 26  # bytes of a text that are read
_RIGID: Final = 1e-2  # by which a rotation may miss its own inverse; of text with few digits


class Listed(NamedTuple):
    """A line of rgb.txt or depth.txt."""

    seconds: float
    file: str


class Placed(NamedTuple):
    """A line of groundtruth.txt."""

    seconds: float
    pose: Matrix  # (4, 4) camera to world, metres


def read_numbers(path: Path) -> list[float]:
    """All numbers of a text, whatever separates them; none where it cannot be read or holds anything else."""
    try:
        return [float(word) for line in _lines(path) for word in line.replace(",", " ").split()]
    except (OSError, ValueError):
        return []


def read_matrix(path: Path, side: int) -> Matrix | None:
    """A text of side x side numbers -> the matrix; of a pose (4 x 4) None unless it is a rigid motion. None for anything else."""
    numbers = read_numbers(path)
    if len(numbers) != side * side:
        return None
    matrix = np.array(numbers).reshape(side, side)
    return matrix if side != 4 or is_rigid(matrix) else None


def is_rigid(matrix: Matrix) -> bool:
    """(4, 4) -> whether it is finite, and a rotation and a translation."""
    turn = matrix[:3, :3]
    if not np.isfinite(matrix).all() or np.abs(matrix[3] - (0, 0, 0, 1)).max() > _RIGID or np.abs(turn).max() > 2:
        return False
    return bool(np.abs(turn @ turn.T - np.eye(3)).max() < _RIGID and np.linalg.det(turn) > 0)


def read_listing(path: Path) -> list[Listed]:
    """Lines `seconds file` -> in the order of time; others are passed over."""
    found = []
    for line in _lines(path):
        words = line.split(maxsplit=1)
        seconds = _seconds(words[0])
        if len(words) == 2 and seconds is not None and _inside(words[1]):
            found.append(Listed(seconds, words[1]))
    return sorted(found)


def read_trajectory(path: Path) -> list[Placed]:
    """Lines `seconds tx ty tz qx qy qz qw` -> poses in the order of time; others are passed over."""
    found = []
    for line in _lines(path):
        try:
            seconds, *numbers = map(float, line.split())
        except ValueError:
            continue
        pose = _from_quaternion(np.array(numbers)) if len(numbers) == 7 else None
        if pose is not None and math.isfinite(seconds):
            found.append(Placed(seconds, pose))
    return sorted(found, key=lambda p: p.seconds)


def associated(first: Sequence[float], second: Sequence[float]) -> dict[int, int]:
    """Ascending times -> {index of the first: index of the second}, each at most once, the closest in time before others."""
    gaps = []
    for i, seconds in enumerate(first):
        start = bisect_left(second, seconds - APART)
        for j in range(start, min(start + _NEAR, len(second))):
            if second[j] > seconds + APART:
                break
            gaps.append((abs(second[j] - seconds), i, j))
    found: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(gaps):
        if i not in found and j not in taken:
            found[i] = j
            taken.add(j)
    return found


def nearest(first: Sequence[float], second: Sequence[float]) -> dict[int, int]:
    """Ascending times -> {index of the first: index of the second that is nearest in time}, where one is near."""
    found = {}
    for i, seconds in enumerate(first):
        at = bisect_left(second, seconds)
        near = min((j for j in (at - 1, at) if 0 <= j < len(second)), key=lambda j: abs(second[j] - seconds), default=-1)
        if near >= 0 and abs(second[near] - seconds) <= APART:
            found[i] = near
    return found


def _from_quaternion(numbers: Matrix) -> Matrix | None:
    """tx ty tz qx qy qz qw -> (4, 4); None where they are no pose."""
    length = np.linalg.norm(numbers[3:])
    if not np.isfinite(numbers).all() or not 0.9 < length < 1.1:
        return None
    x, y, z, w = numbers[3:] / length
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = numbers[:3]
    return pose


def _seconds(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _inside(name: str) -> bool:
    """Whether a file named in a list lies where the list does, or below."""
    return not name.startswith("/") and ".." not in name.split("/") and "\0" not in name


def _lines(path: Path) -> Iterator[str]:
    """Without comments and empty lines; raises OSError."""
    if not path.is_file():  # opening a pipe would wait for ever
        return
    with path.open("rb") as file:
        text = file.read(_MOST).decode("utf-8", "replace")
    for line in text.splitlines():
        if (line := line.strip()) and not line.startswith("#"):
            yield line
