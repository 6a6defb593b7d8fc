"""What a classifier's scores are worth by the metric that a data set, or a protocol, is compared on: top-1, mean per class, mAP ..."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from byol import rng
from byol.data import Metric
from byol.evaluation.accuracy import hits

Measure = Metric | Literal["weighted F1", "within pi/8", "within 3pi/16"]
SHARES: Final = ("top-1", "within pi/8", "within 3pi/16")  # of samples that came out right
DIRECTIONS: Final = 8  # of a reach, an eighth of a turn apart
_NEAR: Final = {"within pi/8": math.pi / 8, "within 3pi/16": 3 * math.pi / 16}
OfClass = Callable[[NDArray[np.float64], NDArray[np.int64]], float]

_RESAMPLED = 200  # test sets that the interval of a metric is taken from
_STREAM = 1 << 20  # of their random numbers: no other purpose counts so far on rng.STREAM_SPLIT


def measured(metric: Measure, scores: Tensor, y: Tensor) -> float:
    """(m, C) scores and (m,) classes, or (m, C) of 1, 0 and -1, -> the metric in [0, 1]; (R, m, C) -> the mean of each of the R."""
    if scores.ndim == 3:
        return sum(measured(metric, s, y) for s in scores) / len(scores)
    if metric in ("11-point mAP", "mAP"):
        return mean_average_precision(scores, y, average_precision if metric == "11-point mAP" else precision_at_hits)
    if metric == "weighted F1":
        return weighted_f1(scores.argmax(1), y)
    if metric in _NEAR:
        return float(near(scores.to(torch.float64) @ plane(torch.arange(DIRECTIONS)), y, _NEAR[metric]).double().mean())
    right = hits(scores, y).double()
    return float(right.mean() if metric == "top-1" else per_class(right, y).mean())


def per_class(right: Tensor, y: Tensor) -> Tensor:
    """(m,) 1 where a sample came out right, (m,) classes -> the mean of each class that is there."""
    counts = y.bincount()
    return (y.bincount(weights=right.double()) / counts)[counts > 0]


def weighted_f1(predicted: Tensor, y: Tensor) -> float:
    """(m,), (m,) classes -> the mean of the F1 of each class that is there, weighted by how often it is."""
    total = 0.0
    for c in range(int(y.max()) + 1):
        hit = int(((predicted == c) & (y == c)).sum())
        said, there = int((predicted == c).sum()), int((y == c).sum())
        total += there * 2 * hit / max(1, said + there)
    return total / len(y)


def plane(directions: Tensor) -> Tensor:
    """(n,) 0 .. 7 -> (n, 2) float64, cosine and sine of the angle."""
    angle = directions.to(torch.float64) * (2 * math.pi / DIRECTIONS)
    return torch.stack([angle.cos(), angle.sin()], 1)


def near(out: Tensor, directions: Tensor, most: float) -> Tensor:
    """(n, 2) cosines and sines up to any length, (n,) 0 .. 7 -> (n,) bool: the angle is off by less than `most`."""
    gap = torch.atan2(out[:, 1], out[:, 0]) - directions * (2 * math.pi / DIRECTIONS)
    return (torch.remainder(gap + math.pi, 2 * math.pi) - math.pi).abs() < most


def mean_average_precision(scores: Tensor, y: Tensor, of_class: OfClass | None = None) -> float:
    """(m, C) scores, (m, C) of 1 (there), 0 (absent) and -1 (not counted) -> the mean over classes that are there at all."""
    s, t = scores.double().cpu().numpy(), y.cpu().numpy()
    found = [(of_class or average_precision)(s[:, c], t[:, c]) for c in range(t.shape[1]) if (t[:, c] == 1).any()]
    if not found:
        raise ValueError("no class is there in any image, so there is no average precision; give images that show one")
    return sum(found) / len(found)


def precision_at_hits(scores: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """(m,) scores, (m,) of 1, 0 and -1 -> the precision at each sample of the class, averaged; equal scores as below."""
    precision, positives = _curve(scores, y)
    return float((np.diff(positives, prepend=0) * precision).sum() / positives[-1])


def average_precision(scores: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """(m,) scores, (m,) of 1, 0 and -1 -> (1/11) sum over r in 0, 0.1 .. 1 of the best precision at a recall of r or more.

    Samples of equal scores enter together, so their order does not matter. A score that is no number is the lowest.
    """
    precision, positives = _curve(scores, y)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or more
    # In whole numbers: a recall of 3/10 has to count for r = 0.3.
    return float(np.mean([best[np.searchsorted(10 * positives, k * positives[-1])] for k in range(11)]))


def _curve(scores: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(k,), (k,): precision, and samples of the class so far, after each of the k different scores from the highest on."""
    s, t = np.nan_to_num(scores[y >= 0], nan=-np.inf), y[y >= 0]
    order = np.argsort(-s, kind="stable")
    ends = np.flatnonzero(np.append(s[order][1:] != s[order][:-1], True))  # of the samples with one score
    positives = np.cumsum(t[order])[ends]
    return positives / (ends + 1), positives


def interval(metric: Measure, scores: Tensor, y: Tensor) -> tuple[float, float]:
    """The 95 % interval of a metric over test sets: the percentiles of 200 that are drawn, with replacement, from this one.

    Of R classifiers, (R, m, C), each measures every R-th of them: all on each would be hours for the mAP of 200 classes.
    """
    draws = []
    for draw in range(_RESAMPLED):
        u = rng.uniforms(0, _STREAM + draw, rng.STREAM_SPLIT, torch.arange(len(y)), 1)[:, 0]
        rows = (u * len(y)).long().clamp_max(len(y) - 1)
        if metric not in ("11-point mAP", "mAP") or bool((y[rows] == 1).any()):
            of_one = scores[draw % len(scores)] if scores.ndim == 3 else scores
            draws.append(measured(metric, of_one[rows], y[rows]))
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
