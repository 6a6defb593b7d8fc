"""k-means in plain torch: the same labels for the same rows, on one device, whatever was drawn before."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1 << 25  # numbers in a table of distances


@torch.no_grad()
def kmeans(x: Tensor, clusters: int, *, iterations: int, seed: int) -> Tensor:
    """(N, D) -> (N,) int64 labels below `clusters`, after so many iterations of Lloyd from `clusters` of the rows.

    An empty cluster begins again at a row of the largest ones. Sums are taken row by row in a fixed order, not by atomic additions.
    """
    first = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:clusters]
    centres = x[first.to(x.device)]
    labels = nearest(x, centres)
    for _ in range(iterations - 1):
        centres = _means(x, labels, clusters)
        labels = nearest(x, centres)
    return labels


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """(N, D), (k, D) -> (N,) which centre is nearest, a part of the rows at a time."""
    half = centres.square().sum(1) / 2
    parts = x.tensor_split(-(-len(x) * len(centres) // CHUNK))
    return torch.cat([torch.addmm(half, part, centres.T, beta=-1).argmax(1) for part in parts])


def _means(x: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """(N, D), (N,) -> (clusters, D): the mean of each; of an empty one, a row of another, the largest first, and round again."""
    order = labels.argsort(stable=True)
    counts = torch.zeros(clusters, dtype=torch.int64, device=x.device).index_add_(0, labels, torch.ones_like(labels))
    means = torch.segment_reduce(x[order], "mean", lengths=counts, axis=0, unsafe=True)
    empty = counts == 0
    place, full = (empty.cumsum(0) - 1).clamp_min(0), (~empty).sum()
    donors = counts.argsort(descending=True, stable=True)[place % full]
    rows = (counts.cumsum(0) - counts)[donors] + (place // full) % counts[donors]
    return torch.where(empty[:, None], x[order[rows]], means)
