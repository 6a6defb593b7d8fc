"""Recordings of neurons: spike counts in bins of time, with trials or a clock, and what the animal did meanwhile.

An .npz of reaches holds x (bins, neurons), y (bins,) the direction of the reach and trial_lengths; one of sleep holds rates
(bins, neurons) and state (bins,). Other files: x, y and perhaps groups (the trial of each bin) and times (in bins).
A sample is a bin, an image of one place whose channels are the neurons: (1, 1, neurons).
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt

from byol.data.arrays import ArrayReader, keys_of, load_one
from byol.data.compact import Names
from byol.data.decode import npy_shape
from byol.data.labels import Labels, from_values
from byol.data.source import Headers, Ids, Kind, Source

_COUNTS: Final = ("x", "rates")
_LABELS: Final = ("y", "state")


def is_recording(path: Path) -> bool:
    """True for an .npz whose x or rates has two axes, by its header alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next((f"{key}.npy" for key in _COUNTS if f"{key}.npy" in archive.namelist()), None)
            if name is None:
                return False
            with archive.open(name) as member:
                return len(npy_shape(cast(BinaryIO, member), archive.getinfo(name).file_size)[0]) == 2
    except Exception:  # damaged, or another kind of file: whoever opens it says how
        return False


def open_recording(spec: str, path: Path, *, limit: int | None = None) -> Source:
    """The bins in an .npz in the order of time, trial after trial; ValueError with one sentence for what cannot be used.

    `groups` are trials, None where there are none: then `times` are bins since the beginning, if the file says nothing else.
    `limit` keeps the first bins.
    """
    keys = keys_of(path)
    known: tuple[str, ...] = (*_COUNTS, *_LABELS, "trial_lengths", "groups", "times")
    found = {name: load_one(path, name) for name in known if name in keys}
    counts = _counts(spec, next((found[name] for name in _COUNTS if name in found), None))
    n, neurons = counts.shape
    groups = _groups(spec, found, n)
    times = _whole(spec, "times", found, n)
    if groups is None and times is None:
        times = np.arange(n)
    labels = next((_whole(spec, name, found, n) for name in _LABELS if name in found), None)
    named = Labels() if labels is None else from_values(labels.tolist())
    source = Source(
        spec=spec,
        names=Names.of(map(str, range(n))),
        reader=ArrayReader("NHWC", "float32", x=counts[:, None, None]),
        channels=neurons,
        dtype="float32",
        labels=named.values,
        classes=list(named.classes),
        skipped=[],
        kind="array",
        headers=_headers(n, neurons),
        notes=(_told(groups, times),),
        groups=groups,
        times=times,
        modality="recording",
    )
    return source if limit is None or limit >= n else first_bins(source, limit)


def stretches(source: Source) -> tuple[Ids, Ids]:
    """(N,), (N,): the first and the last row of the trial of each row; where times are known, of its part without a gap."""
    n = len(source)
    begins = np.zeros(n, bool)
    begins[:1] = True
    if source.groups is not None:
        begins[1:] |= np.diff(source.groups) != 0
    if source.times is not None:
        begins[1:] |= np.diff(source.times) != 1
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], n) - 1
    part = np.cumsum(begins) - 1
    return starts[part], ends[part]


def _counts(spec: str, values: npt.NDArray[np.generic] | None) -> npt.NDArray[np.float32]:
    if values is None or values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "iuf":
        raise ValueError(f"{spec} has no spike counts; save them as x, (bins, neurons)")
    counts = np.ascontiguousarray(values, np.float32)
    bad = np.flatnonzero(~np.isfinite(counts).all(1))
    if len(bad):  # without them their neighbours would no longer be neighbours
        raise ValueError(
            f"{spec}: the counts of {len(bad):,} bins are not finite (first: bin {bad[0]:,}); mend them, or leave their trials out"
        )
    return counts


def _groups(spec: str, found: dict[str, npt.NDArray[np.generic]], n: int) -> Ids | None:
    lengths = found.get("trial_lengths")
    if lengths is None:
        return _whole(spec, "groups", found, n)
    if lengths.dtype.kind not in "iu" or lengths.ndim != 1 or lengths.min(initial=1) < 1 or int(lengths.sum()) != n:
        raise ValueError(f"{spec}: trial_lengths do not add up to the {n:,} bins of x; give the bins of each trial, in order")
    return np.repeat(np.arange(len(lengths)), lengths.astype(np.int64))


def _whole(spec: str, name: str, found: dict[str, npt.NDArray[np.generic]], n: int) -> Ids | None:
    values = found.get(name)
    if values is None:
        return None
    if values.shape != (n,) or values.dtype.kind not in "iu":
        raise ValueError(f"{spec}: {name} is {values.dtype} of shape {values.shape}; give one whole number for each of the {n:,} bins")
    return values.astype(np.int64)


def _headers(n: int, neurons: int) -> Headers:
    one = np.ones(n, np.int32)
    return Headers(one, one, np.full(n, 4 * neurons, np.int64), 0 * one, (Kind("counts", f"{neurons} neurons", neurons, "float32"),))


def _told(groups: Ids | None, times: Ids | None) -> str:
    if groups is not None:
        return f"spike counts in {len(np.unique(groups)):,} trials" + (", their times known" if times is not None else "")
    return "spike counts in the order of time, without trials"


def first_bins(source: Source, limit: int) -> Source:
    """At most `limit` bins, the first."""
    if limit < 1:
        raise ValueError(f"a limit of {limit} bins leaves nothing; give 1 or more")
    note = f"the first {limit:,} of {len(source):,} bins"
    return replace(source.subset(np.arange(limit)), notes=(*source.notes, note))
