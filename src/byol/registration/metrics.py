"""How far off a registration is, and how good its matches are, by the true motion of the camera (methods: BYOC's released metrics).

Rotations in degrees, lengths in centimetres, shares from 0 to 1.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from byol.geometry import move, residuals, rotation_error, translation_error
from byol.registration.task import Frame, Pair

INLIER: Final = 0.1  # metres between matched points under the true motion
MATCHED: Final = 0.05  # of the points of a pair, for it to count in feature-match recall
ERRORS: Final = {"rotation": (5, 10, 45), "translation": (5, 10, 25), "chamfer": (1, 5, 10)}  # degrees, cm, cm
PIXELS: Final = (1, 2, 5)
_BLOCK = 1 << 24  # distances held at a time


@dataclass(frozen=True, eq=False)
class Matches:
    """Points that are said to be the same, in the coordinates of their own cameras."""

    p: Tensor  # (k, 3) in the first
    q: Tensor  # (k, 3) in the second


@dataclass(frozen=True, eq=False)
class Alignment:
    """A motion, and what it was found by; None for what knows no features."""

    R: Tensor  # (3, 3) float64
    t: Tensor  # (3,) float64
    kept: Matches | None = None  # that the motion was fitted to
    nearest: Matches | None = None  # of points drawn from the frame with fewer of them, before any are chosen


def measure(found: Alignment, pair: Pair, a: Frame, b: Frame, sample: Tensor) -> dict[str, float]:
    """The numbers of one pair; chamfer distance over the points of the first frame that `sample` (k,) names."""
    moved, true = (move(R, t, a.points[sample].double()) for R, t in ((found.R, found.t), (pair.R, pair.t)))
    out = {
        "rotation": float(rotation_error(found.R, pair.R)),
        "translation": 100 * float(translation_error(found.t, pair.t)),
        "chamfer": 100 * chamfer(moved, true),
    }
    if found.nearest is not None:
        share = _inliers(found.nearest, pair)
        out |= {"inliers": share, "recalled": float(share > MATCHED)}
    if found.kept is not None:
        share = _inliers(found.kept, pair)
        out |= {"kept inliers": share, "kept recalled": float(share > MATCHED)}
        out |= {f"within {n} px": value for n, value in zip(PIXELS, within(found.kept, pair, a, b), strict=True)}
    return out


def inliers(m: Matches, pair: Pair) -> Tensor:
    """(k,) bool: the matched points are at one place in the world, to 0.1 m."""
    return residuals(pair.R, pair.t, m.p.double(), m.q.double()) < INLIER


def _inliers(m: Matches, pair: Pair) -> float:
    return float(inliers(m, pair).double().mean()) if len(m.p) else 0.0


def within(m: Matches, pair: Pair, a: Frame, b: Frame) -> list[float]:
    """Shares of the matches whose points are at most 1, 2 and 5 pixels apart in a picture, of those that both points are in.

    As released: over both pictures together, each point brought to the other camera by the true motion.
    """
    p, q, back = m.p.double(), m.q.double(), pair.R.mT
    errors, seen = [], []
    for first, second, frame in ((p, move(back, -back @ pair.t, q), a), (move(pair.R, pair.t, p), q, b)):
        shown = [project(points, frame) for points in (first, second)]
        errors.append((shown[0] - shown[1]).norm(dim=1))
        ahead = (first[:, 2] > 0) & (second[:, 2] > 0)
        placed = torch.cat(shown, 1)
        seen.append(ahead & ((placed > -0.5) & (placed < frame.size - 0.5)).all(1))
    error, valid = torch.cat(errors), torch.cat(seen)
    return [float((error[valid] <= n).double().mean()) if bool(valid.any()) else 0.0 for n in PIXELS]


def project(points: Tensor, frame: Frame) -> Tensor:
    """(k, 3) in the camera's coordinates -> (k, 2) column and row; a pixel's centre is whole."""
    fx, fy, cx, cy = frame.camera
    depth = points[:, 2].where(points[:, 2] != 0, torch.ones_like(points[:, 2]))
    return torch.stack([fx * points[:, 0] / depth + cx, fy * points[:, 1] / depth + cy], 1)


def chamfer(p: Tensor, q: Tensor) -> float:
    """(n, 3), (m, 3) -> the mean distance of each point to the nearest of the other cloud, of both ways."""
    if not len(p) or not len(q):
        return 0.0
    return float((_to_nearest(p, q) + _to_nearest(q, p)) / 2)


def _to_nearest(p: Tensor, q: Tensor) -> Tensor:
    # Not by the expansion of the square, which loses the small distances.
    how = "donot_use_mm_for_euclid_dist"
    return torch.cat([torch.cdist(part, q, compute_mode=how).amin(1) for part in torch.split(p, max(1, _BLOCK // len(q)))]).mean()


def summary(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Metric -> its value of each pair; shares of pairs at most at each threshold, means and medians."""
    out: dict[str, float] = {}
    for name, limits in ERRORS.items():
        out |= {f"{name} <= {n}": statistics.fmean(v <= n for v in found[name]) for n in limits}
        out |= {f"{name} mean": statistics.fmean(found[name]), f"{name} median": statistics.median(found[name])}
    called = {"recalled": "feature-match recall", "kept recalled": "feature-match recall of kept", "kept inliers": "inliers of kept"}
    return out | {called.get(name, name): statistics.fmean(values) for name, values in found.items() if name not in ERRORS}
