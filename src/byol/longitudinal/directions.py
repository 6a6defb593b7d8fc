"""Directions of features that may follow time: the one that a method learnt, and two that training samples give any features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from byol.longitudinal.measures import centred, correlation

Features = NDArray[np.float64]  # (N, D)
Direction = NDArray[np.float64]  # (D,), of length 1
Column = NDArray[np.float64]
Ids = NDArray[np.int64]


def first_component(x: Features, times: Column, series: Ids) -> Direction:
    """The direction of most variance; its sign makes the projection grow with time within the series."""
    x = x - x.mean(0)
    # The smaller of the two matrices that have the singular vectors.
    if len(x) < x.shape[1]:
        _, vectors = np.linalg.eigh(x @ x.T)
        found = x.T @ vectors[:, -1]
    else:
        _, vectors = np.linalg.eigh(x.T @ x)
        found = vectors[:, -1]
    found = unit(found)
    sign = correlation(centred(x @ found, series), centred(times, series))
    return -found if sign < 0 else found


def mean_change(x: Features, times: Column, series: Ids) -> Direction:
    """The mean of later minus earlier over all pairs of one series, of different times."""
    total = np.zeros(x.shape[1])
    for s in np.unique(series):
        t, of = times[series == s], x[series == s]
        ordered = np.sort(t)
        # How many pairs a sample is the later of, less those that it is the earlier of.
        total += (np.searchsorted(ordered, t, "left") - (len(t) - np.searchsorted(ordered, t, "right"))) @ of
    return unit(total)


def unit(x: NDArray[np.float64]) -> Direction:
    """Of length 1; zeros stay zeros."""
    length = float(np.linalg.norm(x))
    found: Direction = x / length if length > 0 else x
    return found
