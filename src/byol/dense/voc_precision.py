"""VOC2007's own average precision of boxes, as its devkit computes it: 11 points of recall at an IoU of 0.5.

Unlike COCO's, each found box is judged by the true box that it overlaps most, whether that is taken already or not, and there is no
limit of boxes. The devkit is written down here from memory (unverified); VOC's edges inside the box are read as outside ones by
`boxes.read_voc`, so that widths are the devkit's without its + 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from byol.dense.average_precision import Floats, Found, Truth, iou

OVERLAP = 0.5
_POINTS = 10  # steps of recall from 0 to 1


def voc_average_precision(found: Sequence[Found], truth: Sequence[Truth], classes: Sequence[int]) -> float:
    """The mean over the classes that there are boxes of. ValueError without any."""
    rows = [ap for c in classes if (ap := _of_class(found, truth, c)) is not None]
    if not rows:
        raise ValueError("there are no boxes in the test images; give others with --test")
    return sum(rows) / len(rows)


def _of_class(found: Sequence[Found], truth: Sequence[Truth], c: int) -> float | None:
    """11-point average precision; None without a box to be found."""
    scores, hits, count = [], [], 0
    for f, t in zip(found, truth, strict=True):
        order = np.argsort(-f.scores[f.classes == c], kind="stable")
        mine = t.classes == c
        scores.append(f.scores[f.classes == c][order])
        hits.append(judged(iou(f.boxes[f.classes == c][order], t.boxes[mine]), t.ignored[mine]))
        count += int((~t.ignored[mine]).sum())
    if not count:
        return None
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return _eleven_points(np.concatenate(hits)[order], count)


def judged(ious: Floats, ignored: NDArray[np.bool_]) -> NDArray[np.int8]:
    """(n, m) of n found boxes by falling score and m true ones -> (n,): 1 right, 0 wrong or found twice, -1 does not count."""
    out, taken = np.zeros(len(ious), np.int8), np.zeros(len(ignored), bool)
    for i, row in enumerate(ious):
        nearest = int(row.argmax()) if len(row) else -1
        if nearest < 0 or row[nearest] < OVERLAP:
            continue
        if ignored[nearest]:
            out[i] = -1
        elif not taken[nearest]:
            out[i], taken[nearest] = 1, True
    return out


def _eleven_points(hits: NDArray[np.int8], count: int) -> float:
    """(n,) by falling score -> (1/11) sum over r in 0, 0.1 .. 1 of the best precision at a recall of r or more, 0 where none is."""
    hits = hits[hits >= 0]
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # In whole numbers: a recall of 3/10 has to count for r = 0.3.
    return float(np.mean([best[np.searchsorted(_POINTS * right, k * count)] for k in range(_POINTS + 1)]))
