"""Which samples train a classifier and which test it: stratified, from a seed, the same for everything that is compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byol import rng
from byol.data import Source

Ids = NDArray[np.int64]

FEWEST = 5  # labels per class on average; below, choosing a setting by a part of them is worse than its usual value

# Counters of the random orders, one for each purpose, so that no two decisions share their numbers.
_TEST = 0
_HELD_OUT = 1
_FOLDS = 2
_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Ties:
    """What parts must not tear: neighbouring bins of a recording are nearly copies of each other.

    Groups are whole on one side, and a group counts as one sample of its commonest label. Where times alone are known, what is
    held out comes last.
    """

    groups: Ids | None = None  # (N,); -1: on its own
    times: Ids | None = None  # (N,)

    def take(self, rows: Ids) -> Ties:
        """The same for these rows."""
        return Ties(*(None if known is None else known[rows] for known in (self.groups, self.times)))


FREE = Ties()


def ties_of(source: Source | None) -> Ties:
    """Those of a source; none where nothing is known of it.

    Of dated samples subjects stay whole, also where each has several series. Where classes are the subjects themselves, as in
    folders SUBJECT/DATE, whole ones could not be held out, and samples are on their own.
    """
    if source is None or source.dated is None:
        return FREE if source is None else Ties(source.groups, source.times)
    subjects, labels = source.dated.subjects, source.labels
    return FREE if labels is not None and _same(subjects, labels) else Ties(subjects)


def _same(one: Ids, other: Ids) -> bool:
    """Whether each value of one goes with a single value of the other, and the other way round; -1 is left out."""
    there = (one >= 0) & (other >= 0)
    pairs = len(np.unique(np.stack([one[there], other[there]]), axis=1).T)
    return pairs == len(np.unique(one[there])) == len(np.unique(other[there]))


def stratified(labels: Ids, fraction: float, *, seed: int, ties: Ties = FREE) -> tuple[Ids, Ids]:
    """(N,) labels -> (indices that train, indices that test), both ascending; `fraction` of each class tests.

    A class of two or more samples, or groups, is on both sides; a class of one only trains.
    """
    return _part(labels, fraction, seed, _TEST, ties)


def held_out(labels: Ids, fraction: float, *, seed: int, ties: Ties = FREE) -> tuple[Ids, Ids]:
    """As `stratified`, for choosing a setting inside a training set; another random order than the test split's."""
    return _part(labels, fraction, seed, _HELD_OUT, ties)


def enough_to_choose(labels: Ids) -> bool:
    """True when there are labels enough to hold some out."""
    return len(labels) >= FEWEST * len(np.unique(labels))


def folds(labels: Ids, count: int, *, seed: int, ties: Ties = FREE) -> Ids:
    """(N,) labels -> (N,) the fold that holds each sample out, -1 for the only sample of a class, which is never held out.

    Each class is dealt to the folds in turn, the next class going on where the last one ended; in time, folds follow each other.
    """
    if ties.groups is not None:
        unit, label = _units(labels, ties.groups)
        return folds(label, count, seed=seed)[unit]
    if ties.times is not None:
        dealt_in_time = np.empty(len(labels), np.int64)
        dealt_in_time[np.argsort(ties.times, kind="stable")] = np.arange(len(labels)) * count // len(labels)
        return dealt_in_time
    fold = np.full(len(labels), -1, np.int64)
    dealt = 0
    for members in _by_class(labels, _order(seed, _FOLDS, len(labels))):
        if len(members) > 1:
            fold[members] = (dealt + np.arange(len(members))) % count
            dealt += len(members)
    return fold


def draw_labels(labels: Ids, fraction: float, *, seed: int, draw: int, ties: Ties = FREE) -> Ids:
    """(N,) labels -> ascending indices of the samples whose labels may be used: stratified, one or more of each class.

    The classes share `fraction * N` by their sizes (largest remainder). Draw `draw` of a smaller fraction is part of the
    same draw of a larger one, and fraction 1 is everything. Of groups whole ones are drawn.
    """
    if ties.groups is not None:
        unit, label = _units(labels, ties.groups)
        return np.flatnonzero(np.isin(unit, draw_labels(label, fraction, seed=seed, draw=draw)))
    if not 0 < fraction <= 1:
        raise ValueError(f"a label fraction of {fraction:g} is not possible; give numbers above 0 and up to 1, e.g. 0.01 0.1 1.0")
    classes = _by_class(labels, _order(seed, _DRAWS + draw, len(labels)))
    counts = _shares(np.array([len(c) for c in classes]), fraction)
    return np.sort(np.concatenate([members[:k] for members, k in zip(classes, counts, strict=True)]))


def _shares(sizes: Ids, fraction: float) -> Ids:
    """(C,) class sizes -> (C,) how many of each to take."""
    quota = sizes * fraction
    counts = np.maximum(1, np.floor(quota + 1e-9).astype(np.int64))
    missing = max(0, round(float(fraction * sizes.sum())) - int(counts.sum()))
    room = np.where(counts < sizes, quota - counts, -np.inf)
    counts[np.argsort(-room, kind="stable")[:missing]] += 1
    taken: Ids = np.minimum(counts, sizes)
    return taken


def _part(labels: Ids, fraction: float, seed: int, purpose: int, ties: Ties) -> tuple[Ids, Ids]:
    if ties.groups is not None:
        unit, label = _units(labels, ties.groups)
        within = np.isin(unit, _part(label, fraction, seed, purpose, FREE)[1])
        return np.flatnonzero(~within), np.flatnonzero(within)
    if ties.times is not None:
        first, last = np.split(np.argsort(ties.times, kind="stable"), [len(labels) - round(fraction * len(labels))])
        return np.sort(first), np.sort(last)
    out = np.zeros(len(labels), bool)
    for members in _by_class(labels, _order(seed, purpose, len(labels))):
        n = len(members)
        out[members[: min(n - 1, max(1, round(fraction * n)))]] = True
    return np.flatnonzero(~out), np.flatnonzero(out)


def _units(labels: Ids, groups: Ids) -> tuple[Ids, Ids]:
    """(N,) labels and groups -> (N,) the number of each sample's group, and (U,) the commonest label of each group."""
    alone = np.where(groups < 0, groups.max(initial=0) + 1 + np.arange(len(groups)), groups)
    _, unit = np.unique(alone, return_inverse=True)
    there, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((unit.max() + 1, len(there)), np.int64)
    np.add.at(counts, (unit, label), 1)
    return unit.astype(np.int64), there[counts.argmax(1)]


def _order(seed: int, purpose: int, n: int) -> Ids:
    order: Ids = rng.permutation(seed, purpose, n, stream=rng.STREAM_SPLIT).numpy()
    return order


def _by_class(labels: Ids, order: Ids) -> list[Ids]:
    """The members of each class, classes ascending, in the given random order."""
    shuffled = labels[order]
    return [order[shuffled == c] for c in np.unique(labels)]
