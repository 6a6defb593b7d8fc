"""How a projection follows time within series: correlations, and the share of pairs in the right order, with intervals over subjects.

What subjects differ in is taken out by centring: projection and time of every series have mean 0 before they are pooled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]  # (N,)
Ids = NDArray[np.int64]  # (N,)
Interval = tuple[float, float]

MEASURES: Final = ("r", "rho", "mean r", "ordered")  # the first is the one that counts
ABOUT: Final = {
    "r": "Pearson correlation with time, pooled after each series is centred",
    "rho": "Spearman's of the same",
    "mean r": "the mean of the correlations within each subject",
    "ordered": "pairs of one series, of different dates, that the projection puts in their order; 0.5 is chance",
}
_RESAMPLES: Final = 2000
_RANGE: Final = (2.5, 97.5)  # percentiles


@dataclass(frozen=True, eq=False)
class Measured:
    """The measures of one projection; an interval is None where there are fewer than two subjects to draw from."""

    values: dict[str, float]
    intervals: dict[str, Interval | None]


def measured(projection: Column, times: Column, series: Ids, subjects: Ids, *, seed: int = 0) -> Measured:
    """(N,) each -> the measures, with 95 % intervals by drawing whole subjects anew; a series lies within one subject.

    A projection that is the same throughout a series has the correlation 0 there, and a tie is half in order. In the intervals of
    rho the ranks stay those of all subjects.
    """
    names, whose = np.unique(subjects, return_inverse=True)
    p, t = centred(projection, series), centred(times, series)
    sums = _Sums(p, t, whose, len(names))
    ranks = _Sums(_centred_ranks(p), _centred_ranks(t), whose, len(names))
    within = np.array([_within(p[whose == s], t[whose == s], series[whose == s]) for s in range(len(names))])
    right, all_of = np.array([pairs_in_order(projection[whose == s], times[whose == s], series[whose == s]) for s in range(len(names))]).T
    of: dict[str, Callable[[Column], Column]] = {
        "r": sums.correlation,
        "rho": ranks.correlation,
        "mean r": lambda w: w @ within / w.sum(1),
        "ordered": lambda w: w @ right / np.maximum(w @ all_of, 1),
    }
    once = np.ones((1, len(names)))
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), _RESAMPLES).astype(np.float64)
    values = {name: float(measure(once)[0]) for name, measure in of.items()}
    ends = {name: _interval(measure(drawn)) if len(names) > 1 else None for name, measure in of.items()}
    return Measured(values, ends)


def centred(values: Column, series: Ids) -> Column:
    """(N,), (N,) -> (N,): less the mean of each series."""
    _, of = np.unique(series, return_inverse=True)
    means: Column = np.bincount(of, values) / np.bincount(of)
    return values - means[of]


def ranks(values: Column) -> Column:
    """(N,) -> (N,): from 1; equal ones share the mean of theirs."""
    _, of, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Column = (last - (counts - 1) / 2)[of]
    return found


def pairs_in_order(projection: Column, times: Column, series: Ids) -> tuple[float, float]:
    """(pairs of a series whose projection has the order of their times, ties half; pairs of a series of different times)."""
    right = every = 0.0
    for s in np.unique(series):
        order = np.argsort(times[series == s], kind="stable")
        p, t = projection[series == s][order], times[series == s][order]
        for i in range(len(p)):
            later = t > t[i]
            right += float((p[later] > p[i]).sum() + 0.5 * (p[later] == p[i]).sum())
            every += float(later.sum())
    return right, every


def correlation(a: Column, b: Column) -> float:
    """Pearson's; 0 where one of them does not vary."""
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _within(p: Column, t: Column, series: Ids) -> float:
    """Of one subject: the mean over its series."""
    return float(np.mean([correlation(p[series == s], t[series == s]) for s in np.unique(series)]))


def _centred_ranks(values: Column) -> Column:
    return ranks(values) - (len(values) + 1) / 2


class _Sums:
    """The sums of products of two columns over each subject, from which correlations of any draw of subjects follow."""

    def __init__(self, a: Column, b: Column, whose: Ids, count: int) -> None:
        self.aa, self.bb, self.ab = (np.bincount(whose, x, count) for x in (a * a, b * b, a * b))

    def correlation(self, w: Column) -> Column:
        """(R, subjects) how often each is drawn -> (R,)."""
        size = np.sqrt((w @ self.aa) * (w @ self.bb))
        found: Column = np.divide(w @ self.ab, size, out=np.zeros(len(w)), where=size > 0)
        return found


def _interval(values: Column) -> Interval:
    low, high = np.percentile(values, _RANGE)
    return float(low), float(high)
