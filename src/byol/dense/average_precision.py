"""COCO's average precision of boxes: 101 points of recall, IoU 0.50 to 0.95, at most 100 boxes an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # boxes of an image and class


@dataclass(frozen=True)
class Found:
    """What a detector says of one image."""

    boxes: Floats  # (n, 4) left, top, right, bottom
    classes: NDArray[np.integer]  # (n,)
    scores: Floats  # (n,)


@dataclass(frozen=True)
class Truth:
    """What is in it."""

    boxes: Floats  # (m, 4)
    classes: NDArray[np.integer]  # (m,)
    ignored: NDArray[np.bool_]  # (m,) neither right nor wrong when found


def average_precision(found: Sequence[Found], truth: Sequence[Truth], classes: Sequence[int]) -> dict[str, float]:
    """AP50, AP75 and AP (the mean over ten thresholds), each the mean over the classes that there are boxes of."""
    rows = [ap for c in classes if (ap := _of_class(found, truth, c)) is not None]
    if not rows:
        raise ValueError("there are no boxes in the test images; give others with --test")
    mean = np.mean(rows, axis=0)
    return {"AP50": float(mean[0]), "AP75": float(mean[5]), "AP": float(mean.mean())}


def _of_class(found: Sequence[Found], truth: Sequence[Truth], c: int) -> Floats | None:
    """(10,) the average precision at each threshold; None without a box to be found."""
    scores, hits, count = [], [], 0
    for f, t in zip(found, truth, strict=True):
        order = np.argsort(-f.scores[f.classes == c], kind="stable")[:MOST]
        mine = t.classes == c
        ious = iou(f.boxes[f.classes == c][order], t.boxes[mine])
        scores.append(f.scores[f.classes == c][order])
        hits.append(np.stack([match(ious, t.ignored[mine], float(threshold)) for threshold in THRESHOLDS]))
        count += int((~t.ignored[mine]).sum())
    if not count:
        return None
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return np.array([_area(row[order], count) for row in np.concatenate(hits, axis=1)])


def match(ious: Floats, ignored: NDArray[np.bool_], threshold: float) -> NDArray[np.int8]:
    """(n, m) of n found boxes by falling score and m true ones -> (n,): 1 right, 0 wrong, -1 does not count.

    Each found box takes the free true box that it overlaps most, if that is by the threshold or more; ignored ones are never used up.
    """
    out, free = np.zeros(len(ious), np.int8), ~ignored
    for i, row in enumerate(ious):
        best = int(np.where(free, row, -1).argmax()) if len(row) else -1
        if best >= 0 and free[best] and row[best] >= threshold:
            out[i], free[best] = 1, False
        elif (row[ignored] >= threshold).any():
            out[i] = -1
    return out


def _area(hits: NDArray[np.int8], count: int) -> float:
    """(n,) by falling score -> the mean over 101 recalls of the best precision at that recall or more."""
    hits = hits[hits >= 0]
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(right / count, RECALLS)
    return float(np.append(best, 0.0)[at].mean())  # recalls that are never reached count as 0


def iou(a: Floats, b: Floats) -> Floats:
    """(n, 4), (m, 4) -> (n, m) intersection over union, in float64."""
    a, b = a.astype(np.float64).reshape(-1, 1, 4), b.astype(np.float64).reshape(1, -1, 4)
    sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0)
    both = sides.prod(-1)
    areas = [(v[..., 2:] - v[..., :2]).prod(-1) for v in (a, b)]
    result: Floats = both / (areas[0] + areas[1] - both)
    return result
