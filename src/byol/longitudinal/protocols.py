"""The protocol by name, with settings of one's own after a colon: `progression:folds=10,dates=4`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from byol import asked
from byol import data as datas
from byol.data import Source

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Progression:
    """Correlation of a direction of the features with time, within subjects that its fit has not seen."""

    folds: int = 5  # parts of the subjects where there are no test data, each tested once; 0: every subject is one
    dates: int = 3  # a series has to have so many different ones to be scored

    name = "progression"

    def __post_init__(self) -> None:
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"folds={self.folds} leaves nothing to fit on; give 2 or more, or 0 for one a subject")
        if self.dates < 2:
            raise ValueError(f"dates={self.dates} has no order; give 2 or more")

    def describe(self) -> str:
        """The protocol and its settings in a few words."""
        folds = f"{self.folds} folds of subjects" if self.folds else "each subject in turn"
        return f"progression: directions against time in subjects not fitted on ({folds}, or --test), series of {self.dates} dates or more"

    def open(self, data: str, test: str | None, limit: int | None) -> Task:
        """The task in these data; ValueError where it is not known whose samples are and when they were made."""
        train = _dated(datas.open_source(data, limit=limit))
        held_out = None if test is None else _dated(datas.open_source(test, limit=limit))
        if held_out is None:
            folds = folds_of(subjects_of(train), self.folds)
            count = len(np.unique(folds))
            how = "each subject in turn" if not self.folds or count < self.folds else f"subjects in {count} folds"
        else:
            folds, how = np.zeros(len(held_out), np.int64), "test data of their own"
        return Task(train, held_out, folds, how)


@dataclass(frozen=True, eq=False)
class Task:
    """Samples to fit directions on, and samples to test them on."""

    train: Source
    test: Source | None  # None: the samples of `train`, by folds
    folds: Ids  # (N,) of the test samples: which of them are tested by one fit
    how: str  # where test subjects come from

    def source(self) -> Source:
        """The training samples."""
        return self.train


def names() -> list[str]:
    """What `load` knows."""
    return [Progression.name]


def describe(name: str) -> str:
    """A protocol and its default settings, in a few words."""
    return load(name).describe()


def load(text: str) -> Progression:
    """`NAME` or `NAME:KEY=VALUE,...` -> the protocol; ValueError for what is not there."""
    return asked.read(text, {Progression.name: Progression}, "longitudinal protocol")


def subjects_of(source: Source) -> Ids:
    """(N,) whose the samples are: of dated samples the subject, which may have several series, else the group."""
    assert source.groups is not None
    return source.groups if source.dated is None else source.dated.subjects


def folds_of(subjects: Ids, folds: int) -> Ids:
    """(N,) -> (N,) the fold of each sample's subject, as even as subjects go; 0 or more folds than subjects: one for each."""
    there, of = np.unique(subjects, return_inverse=True)
    if len(there) < 2:
        raise ValueError("there is one subject alone, and none to fit a direction on; give --test with others")
    found: Ids = (of % min(folds or len(there), len(there))).astype(np.int64)
    return found


def _dated(source: Source) -> Source:
    """The samples whose series and time are known."""
    if source.modality in ("recording", "sound") or source.groups is None or source.times is None:
        raise ValueError(
            f"{source.spec} does not say whose its {source.words.many} are and when they were made; "
            "name files SUBJECT/DATE, or give a list with the columns path, subject and date"
        )
    return source.subset(np.flatnonzero(source.groups >= 0))
