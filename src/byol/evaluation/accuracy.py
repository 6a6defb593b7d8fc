"""How often the right class is among the k best: from the scores of a classifier, with a fixed rule for ties."""

from __future__ import annotations

import torch
from torch import Tensor


def hits(scores: Tensor, labels: Tensor, k: int = 1) -> Tensor:
    """(..., N, C) scores, (N,) labels -> (..., N) bool: the label is among the k highest; of equal scores the lower class is first."""
    labels = labels.expand(scores.shape[:-1])[..., None]
    own = scores.gather(-1, labels)
    lower = torch.arange(scores.shape[-1], device=scores.device) < labels
    ahead = (scores > own) | ((scores == own) & lower)
    return ahead.sum(-1) < k
