"""How often the right class is among the k best: from the scores of a classifier, with a fixed rule for ties."""

from __future__ import annotations

import torch
from torch import Tensor


def hits(scores: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """(..., N, C) scores, (N,) labels -> (..., N) bool: the label is among the k highest.

    Of equal scores the lower class is first. A classifier that diverged has no hit: nothing is below a NaN.
    """
    classes = scores.shape[-1]
    labels = labels.expand(scores.shape[:-1])[..., None]
    own = scores.gather(-1, labels)
    higher = torch.arange(classes, device=scores.device) > labels
    behind = (scores < own) | ((scores == own) & higher)
    return classes - 1 - behind.sum(-1) < k
