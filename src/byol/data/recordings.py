"""Recordings of neurons: spike counts in bins of time, with trials or a clock, and what the animal did meanwhile.

An .npz of reaches holds x (bins, neurons), y (bins,) the direction of the reach and trial_lengths; one of sleep holds rates
(bins, neurons) and state (bins,). Other files: x, y and perhaps groups and times as for images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from byol.data.arrays import keys_of, load_one
from byol.data.source import Ids

Counts = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Recording:
    """Bins in the order of time, trial after trial."""

    counts: Counts  # (N, neurons) spikes in each bin
    groups: Ids  # (N,) the trial of each bin; all 0 where there are no trials
    times: Ids | None  # (N,) bins since the beginning; None where that is known within a trial alone
    labels: Ids | None  # (N,) direction of the reach, or state; None: not said

    def __len__(self) -> int:
        return len(self.counts)

    def bounds(self) -> tuple[Ids, Ids]:
        """(N,), (N,): the first and the last bin of the trial of each bin."""
        starts = np.flatnonzero(np.diff(self.groups, prepend=self.groups[0] - 1))
        ends = np.append(starts[1:], len(self)) - 1
        trial = np.cumsum(np.isin(np.arange(len(self)), starts)) - 1
        return starts[trial], ends[trial]


def open_recording(path: str | Path) -> Recording:
    """The recording in an .npz; ValueError with one sentence for anything else."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}; give the .npz of a recording")
    keys = keys_of(path)
    found = {name: load_one(path, name) for name in keys if name in ("x", "rates", "y", "state", "trial_lengths", "groups", "times")}
    counts = found.get("x", found.get("rates"))
    if counts is None or counts.ndim != 2 or 0 in counts.shape or counts.dtype.kind not in "iuf":
        raise ValueError(f"{path} has no spike counts; save them as x, (bins, neurons)")
    n = len(counts)
    lengths = found.get("trial_lengths")
    groups = _whole(path, "groups", found, n)
    if lengths is not None:
        if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or lengths.min(initial=1) < 1 or int(lengths.sum()) != n:
            raise ValueError(f"{path}: trial_lengths do not add up to the {n:,} bins of x; give the bins of each trial, in order")
        groups = np.repeat(np.arange(len(lengths)), lengths.astype(np.int64))
    times = _whole(path, "times", found, n)
    labels = _whole(path, "y" if "y" in found else "state", found, n)
    if groups is None:
        groups, times = np.zeros(n, np.int64), np.arange(n) if times is None else times
    return Recording(np.ascontiguousarray(counts, np.float32), groups, times, labels)


def _whole(path: Path, name: str, found: dict[str, npt.NDArray[np.generic]], n: int) -> Ids | None:
    values = found.get(name)
    if values is None:
        return None
    if values.shape != (n,) or values.dtype.kind not in "iu":
        raise ValueError(f"{path}: {name} is {values.dtype} of shape {values.shape}; give one whole number for each of the {n:,} bins")
    return values.astype(np.int64)


def by_trial(groups: Ids, shares: Sequence[float], *, seed: int) -> list[Ids]:
    """Rows of each part, whole trials in each, ascending; `shares` of the trials add up to 1."""
    trials = np.unique(groups)
    order = np.random.default_rng(seed).permutation(trials)
    return [np.flatnonzero(np.isin(groups, part)) for part in np.split(order, _cuts(len(trials), shares))]


def in_time(n: int, shares: Sequence[float]) -> list[Ids]:
    """Rows of each part, one after the other in time: what is tested comes after all that was trained on."""
    return np.split(np.arange(n), _cuts(n, shares))


def _cuts(n: int, shares: Sequence[float]) -> list[int]:
    if abs(sum(shares) - 1) > 1e-9 or min(shares) <= 0:
        raise ValueError(f"the shares {', '.join(f'{s:g}' for s in shares)} do not divide the data; give numbers above 0 that add up to 1")
    cuts = [round(n * c) for c in np.cumsum(shares)[:-1]]
    if np.diff([0, *cuts, n]).min() < 1:
        raise ValueError(f"{n} trials or bins are too few for {len(shares)} parts; give a longer recording")
    return cuts
