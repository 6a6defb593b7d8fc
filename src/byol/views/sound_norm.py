"""Normalisation of log-mel spectrograms: by statistics of the data before they are changed, and by those of all views afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from byol import dist
from byol.logmel import EPS, LogMel

SAMPLE = 10_000  # windows that the statistics are of at most, as in BYOL-A's second version


def moments(x: Tensor) -> Tensor:
    """(B, 1, F, T) -> (B, 2): the mean and the variance of each sample."""
    variance, mean = torch.var_mean(x.flatten(1), dim=1, correction=0)
    return torch.stack([mean, variance], 1)


def combined(found: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 2) moments of samples of one size -> the mean (), and the variance () of all their values about it."""
    variance, mean = torch.var_mean(found[:, 0], dim=0, correction=0)
    return mean, found[:, 1].mean() + variance


def standardised(views: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """V views (B, 1, F, T) -> the same, less one mean and over one deviation: those of all views of the whole batch together."""
    found = dist.gathered(torch.stack([moments(v) for v in views], 1)).flatten(0, 1)
    mean, variance = combined(found)
    values = len(found) * views[0][0].numel()
    std = (variance * (values / max(1, values - 1))).sqrt().clamp_(min=EPS)
    return tuple(torch.sub(v, mean).div_(std) for v in views)


@torch.no_grad()
def statistics(waves: Iterable[Tensor], logmel: LogMel, most: int = SAMPLE) -> tuple[float, float]:
    """Batches (B, T) of windows of one length -> mean and deviation of the log-mels of the first `most`; no more are asked for."""
    parts: list[Tensor] = []
    left = most
    for batch in waves:
        parts.append(moments(logmel(batch[:left]).cpu().double()))
        left -= len(parts[-1])
        if left <= 0:
            break
    if not sum(map(len, parts)):
        raise ValueError("there is no sound to take statistics of; give at least one window")
    mean, variance = combined(torch.cat(parts))
    return float(mean), max(float(variance) ** 0.5, EPS)
