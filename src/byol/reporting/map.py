"""Features -> nearest neighbours, and a flat map of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]  # (N, D)
_TOO_FEW = 12  # below this, t-SNE has no neighbourhoods to keep


@dataclass(frozen=True)
class Flat:
    """Points of a map."""

    xy: NDArray[np.float64]  # (N, 2) in [0, 1], y downwards; both axes to the same scale
    aspect: float  # width / height of the map
    method: str  # in words, with its seed


def directions_of(x: Features) -> NDArray[np.float64]:
    """(N, D) -> (N, D) rows of length 1 as seen from their mean; a row at the mean stays zero.

    After a ReLU all features are positive and all cosines near 1; seen from the mean, as in the kNN evaluation, they differ.
    """
    wide = x.astype(np.float64)
    wide -= wide.mean(axis=0)
    directions: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return directions


def nearest(x: Features, queries: list[int], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N, D) features, Q row numbers -> the k nearest other rows by cosine around the mean, (Q, k), and their cosines, best first.

    Of equal cosines the lower row comes first. k is cut to N - 1.
    """
    directions = directions_of(x)
    cosines = directions[queries] @ directions.T
    cosines[np.arange(len(queries)), queries] = -np.inf
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : max(0, min(k, len(x) - 1))]
    return order.astype(np.int64), np.take_along_axis(cosines, order, axis=1)


def same_class(x: Features, labels: list[int], k: int) -> float | None:
    """The mean share of the k nearest neighbours of a labelled row, among labelled rows, that have its class; None below k + 1 rows."""
    known = [i for i, label in enumerate(labels) if label >= 0]
    if len(known) <= k:
        return None
    classes = np.asarray(labels)[known]
    found, _ = nearest(x[known], list(range(len(known))), k)
    return float((classes[found] == classes[:, None]).mean())


def flatten(x: Features, seed: int = 0) -> Flat:
    """(N, D) -> a map: t-SNE of the directions of the features (van der Maaten & Hinton 2008), or PCA when there are very few."""
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    directions = directions_of(x)
    # Sums over threads come in another order each time, and t-SNE turns the last bit into another picture.
    with threadpool_limits(limits=1):
        parts = min(50, *directions.shape)
        alike = np.ptp(directions, axis=0).max() < 1e-9
        reduced = np.zeros((len(x), 2)) if alike else PCA(parts, svd_solver="full").fit_transform(directions)
        if len(x) < _TOO_FEW or alike:
            flat = np.pad(reduced, ((0, 0), (0, max(0, 2 - reduced.shape[1]))))[:, :2]
            return _framed(flat, "PCA, the first two components of the features' directions")
        return _framed(*_tsne(reduced, seed))


def _tsne(reduced: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], str]:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(reduced) - 1) / 3)
    flat = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed).fit_transform(reduced)
    words = f"t-SNE of the features' directions (PCA to {reduced.shape[1]} dimensions, perplexity {perplexity:.3g}, seed {seed})"
    return flat, words


def _framed(flat: NDArray[np.float64], method: str) -> Flat:
    """The points in a frame of their own aspect, between 5:4 and 9:5, with equal scale on both axes, the longest way across."""
    centred = flat - flat.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    # The sign of an eigenvector is arbitrary; its largest part positive makes it the same everywhere.
    flat = centred @ (axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(2)]))
    low, high = flat.min(axis=0), flat.max(axis=0)
    width, height = np.maximum(high - low, 1e-9)
    aspect = float(np.clip(width / height, 1.25, 1.8))
    scale = min(aspect / width, 1 / height)  # the frame is `aspect` wide and 1 high
    x, y = (0.96 * scale * (flat - (low + high) / 2)).T
    return Flat(np.stack([0.5 + x / aspect, 0.5 - y], axis=1), aspect, method)


def cells(flat: Flat, columns: int) -> dict[int, tuple[float, float]]:
    """Which points get a picture on a grid of square cells, and the centre of their cell: in each the point nearest to its centre."""
    rows = max(1, round(columns / flat.aspect))
    grid = np.array([columns, rows])
    cell = np.minimum((flat.xy * grid).astype(int), grid - 1)
    centre = (cell + 0.5) / grid
    distance = np.square((flat.xy - centre) * grid).sum(axis=1)
    best: dict[tuple[int, int], int] = {}
    for i in np.lexsort((np.arange(len(cell)), distance)):
        best.setdefault((int(cell[i, 0]), int(cell[i, 1])), int(i))
    return {i: (float(centre[i, 0]), float(centre[i, 1])) for i in sorted(best.values())}
