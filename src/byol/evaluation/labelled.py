"""From sources with labels to a training and a test part with classes 0 .. C-1, or one sentence why that is not possible."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from byol.data import Metric, Source
from byol.evaluation import splits

Ids = NDArray[np.int64]

TEST_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Parts:
    """Which rows train, which test, and their classes."""

    train: Ids  # (n,) rows of the training source
    test: Ids  # (m,) rows of the test source; of the training source where there is no other
    train_y: Ids  # (n,) in 0 .. classes-1, every class at least once; (n, classes) of 1, 0, -1 where an image has several
    test_y: Ids  # (m,)
    classes: int
    how: str  # the split in words
    notes: list[str]
    metric: Metric = "top-1"
    ties: splits.Ties = splits.FREE  # of the training rows


def several(source: Source) -> Ids | None:
    """(n, C) of 1, 0 and -1 where an image has several classes; else None."""
    return None if source.official is None else source.official.targets


def with_labels(source: Source) -> Source:
    """The samples whose label is known; ValueError if there are none."""
    if several(source) is not None:
        return source
    if source.labels is None or not len(source) or source.labels.max() < 0:
        raise ValueError(
            f"{source.spec} has no labels, and an evaluation needs some; "
            "give class folders, a list with a label column, or an .npz with x and y"
        )
    return source if source.labels.min() >= 0 else source.subset(np.flatnonzero(source.labels >= 0))


def in_classes_of(train: Source, test: Source) -> Source:
    """The test source with its labels in the training source's numbering, matched by name; ValueError for a class it lacks."""
    if several(train) is not None or several(test) is not None:
        if several(train) is None or several(test) is None or train.classes != test.classes:
            both = f"{train.spec} cannot be tested on {test.spec}"
            raise ValueError(f"{both}: {train.words.many} have several classes in one of them; leave --test out")
        return test
    assert test.labels is not None
    number = {name: i for i, name in enumerate(train.classes)}
    there = [test.classes[c] for c in np.unique(test.labels)]
    missing = [name for name in there if name not in number]
    if missing:
        raise ValueError(_unknown(missing, train, test.spec))
    table = np.array([number.get(name, -1) for name in test.classes], np.int64)
    return replace(test, labels=table[test.labels], classes=train.classes)


def divide(train: Source, test: Source | None, *, seed: int) -> list[Parts]:
    """The rows and classes of both parts, of data with folds once for each; ValueError where nothing can be learnt or tested."""
    folds = train.official.folds if train.official is not None and test is None else None
    if several(train) is not None:
        assert test is not None
        return [_of_several(train, test)]
    if test is not None:
        return [_parts(train, test, np.arange(len(train)), np.arange(len(test)), f"test set {test.spec}")]
    assert train.labels is not None
    if folds is None:
        rows, test_rows = splits.stratified(train.labels, TEST_SHARE, seed=seed, ties=splits.ties_of(train))
        return [_parts(train, None, rows, test_rows, _how(train, test_rows, seed))]
    there = np.unique(folds)
    if len(there) < 2:
        raise ValueError(f"{train.spec} has {len(there)} fold here, and leaving one out needs two; take more {train.words.many}, or --test")
    how = f"{len(there)} folds, each left out in turn"
    return [_parts(train, None, np.flatnonzero(folds != f), np.flatnonzero(folds == f), how) for f in there]


def _of_several(train: Source, test: Source) -> Parts:
    """All images of both, where they have several classes."""
    y, tested = several(train), several(test)
    assert y is not None
    assert tested is not None
    return Parts(np.arange(len(y)), np.arange(len(tested)), y, tested, len(train.classes), f"test set {test.spec}", [], _metric(train))


def _metric(train: Source) -> Metric:
    return train.official.metric if train.official is not None else "top-1"


def _parts(train: Source, test: Source | None, rows: Ids, test_rows: Ids, how: str) -> Parts:
    """These rows of the training source, and of the test source where there is one."""
    whose = train if test is None else test
    assert train.labels is not None
    assert whose.labels is not None
    labels, test_labels = train.labels[rows], whose.labels[test_rows]
    ties = splits.ties_of(train)
    there, y = np.unique(labels, return_inverse=True)
    if len(there) < 2:
        only = train.classes[there[0]]
        raise ValueError(f"{train.spec} has the one class {only!r}, and telling classes apart needs two; add {train.words.many} of another")
    if not len(test_labels):
        one, more = ("group", "groups") if ties.groups is not None else (train.words.one, train.words.many)
        raise ValueError(f"{train.spec} has one {one} of every class, so none is left to test with; add {more}, or give --test")
    absent = [train.classes[c] for c in np.setdiff1d(test_labels, there)]
    folds = train.official is not None and train.official.folds is not None
    if absent and test is None:
        where = "fold" if folds else "groups" if ties.groups is not None else "time"
        raise ValueError(f"the class {absent[0]!r} of {train.spec} is in the held-out {where} alone, and nothing teaches it; give --test")
    if absent:
        raise ValueError(_unknown(absent, train, "the test set" if test is None else test.spec))
    notes = _untested(train, there, test_labels) if test is None and not folds else []
    if whose.groups is not None or whose.times is not None:
        notes.append(f"neighbouring {whose.words.many} are alike, and the interval, which takes each for itself, is too narrow")
    y, test_y = y.astype(np.int64), np.searchsorted(there, test_labels)
    return Parts(rows, test_rows, y, test_y, len(there), how, notes, _metric(train), ties.take(rows))


def _how(source: Source, test: Ids, seed: int) -> str:
    """How the test part was taken from the whole, in words."""
    ties = splits.ties_of(source)
    if ties.groups is not None:
        what = "subjects" if source.dated is not None else "trials" if source.modality == "recording" else "groups"
        return f"{len(np.unique(ties.groups[test])):,} of {len(np.unique(ties.groups)):,} {what}, stratified, seed {seed}"
    return "the last in time" if ties.times is not None else f"stratified, seed {seed}"


def _untested(train: Source, there: Ids, test_labels: Ids) -> list[str]:
    names = [train.classes[c] for c in np.setdiff1d(there, test_labels)]
    if not names:
        return []
    ties = splits.ties_of(train)
    if ties.groups is not None or ties.times is not None:
        return [f"not tested, as it is in the training part alone: {', '.join(map(repr, names))}"]
    first = f"{names[0]!r} has" if len(names) == 1 else f"{names[0]!r} and {len(names) - 1} more classes have"
    return [f"{first} a single {train.words.one}, which trains: not tested"]


def _unknown(missing: list[str], train: Source, test: str) -> str:
    what = f"the class {missing[0]!r}" if len(missing) == 1 else f"{len(missing)} classes (first: {missing[0]!r})"
    one, many = train.words.one, train.words.many
    return f"{test} has {what} and no {one} of {train.spec} is labelled so; use the same class names, or leave those {many} out"
