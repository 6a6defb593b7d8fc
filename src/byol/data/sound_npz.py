"""Many short sounds in one .npz -> a source: all samples one after the other, and where each sound begins."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from byol.data.arrays import keys_of, load_one
from byol.data.compact import Names, narrow
from byol.data.labels import Labels, from_values
from byol.data.sound_clips import Cuts, Stream, frames_at, kind_of
from byol.data.sound_reader import SoundReader
from byol.data.source import Headers, Ids, Pixels, Source, Unreadable

RATES: Final = ("sr", "rate", "sample_rate")  # one of these makes an .npz one of sounds
_STREAMS: Final = ("flac", "x", "samples")
_GROUPS: Final = ("groups", "speaker")


def open_npz(spec: str, path: Path, rate: int) -> Source:
    """x: all samples one after the other, or flac: the bytes of one sound file; offsets (N + 1,) in frames, sr in Hz.

    Without offsets x is (N, frames). Beside them, where there are such: y, classes, files (names), speaker (becomes groups).
    """
    keys = keys_of(path)
    key, said = (next((k for k in known if k in keys), None) for known in (_STREAMS, RATES))
    if key is None or said is None:
        raise ValueError(f"{spec} holds {', '.join(keys[:8]) or 'nothing'}; save samples as x (or a sound file's bytes as flac) and sr")
    stream = Stream(str(path), key, _rate(spec, said, load_one(path, said)))
    try:
        with stream.clip(0) as clip:
            kind, of, frames = kind_of(clip, "array"), clip.rate, clip.frames
    except Unreadable as error:
        raise ValueError(f"{spec}: {key} {error}; save it again") from error
    starts = _starts(spec, path, keys, key, frames)
    counts, n = np.diff(starts), len(starts) - 1
    names = Names.of(map(str, _column(spec, path, "files", n).tolist() if "files" in keys else range(n)))
    widths = np.array([frames_at(c, of, rate) for c in counts.tolist()], np.int64)
    labels = _labels(spec, path, keys, n)
    group = next((k for k in _GROUPS if k in keys), None)
    return Source(
        spec=spec,
        names=names,
        reader=SoundReader(Cuts(stream, names, np.zeros(n, np.uint8), narrow(starts[:-1]), narrow(counts)), rate, narrow(widths)),
        channels=1,
        dtype="float32",
        labels=labels.values,
        classes=list(labels.classes),
        skipped=[],
        kind="sound",
        modality="sound",
        rate=rate,
        headers=Headers(np.ones(n, np.int32), widths.astype(np.int32), counts * 4, np.zeros(n, np.int32), (kind,)),
        groups=None if group is None else _whole(spec, group, _column(spec, path, group, n)),
    )


def _rate(spec: str, key: str, value: Pixels) -> int:
    if value.size != 1 or value.dtype.kind not in "iuf" or not 1 <= float(value.reshape(-1)[0]) <= 1e6:
        raise ValueError(f"{spec}: {key} is no rate; save the frames per second as one number")
    return int(value.reshape(-1)[0])


def _starts(spec: str, path: Path, keys: list[str], key: str, frames: int) -> Ids:
    """(N + 1,) where each sound begins, and where the last one ends."""
    if "offsets" in keys:
        starts = _whole(spec, "offsets", load_one(path, "offsets"))
        if starts.ndim == 1 and len(starts) > 1 and starts[0] >= 0 and (np.diff(starts) > 0).all() and starts[-1] <= frames:
            return starts
        raise ValueError(f"{spec}: offsets do not divide the {frames:,} frames; save where each sound begins, and the end of the last one")
    shape = load_one(path, key).shape
    if key == "flac" or len(shape) != 2 or 0 in shape:
        raise ValueError(f"{spec} does not say where its sounds begin; save offsets, or x as (sounds, frames)")
    rows: Ids = np.arange(shape[0] + 1) * shape[1]
    return rows


def _column(spec: str, path: Path, key: str, n: int) -> Pixels:
    values = load_one(path, key)
    if values.shape != (n,):
        raise ValueError(f"{spec} has {n:,} sounds, but {key} has the shape {values.shape}; give one value per sound")
    return values


def _whole(spec: str, key: str, values: Pixels) -> Ids:
    if values.dtype.kind not in "iu":
        raise ValueError(f"{spec}: {key} holds {values.dtype}; save whole numbers")
    return values.astype(np.int64)


def _labels(spec: str, path: Path, keys: list[str], n: int) -> Labels:
    if "y" not in keys:
        return Labels()
    y = _column(spec, path, "y", n)
    classes = load_one(path, "classes") if "classes" in keys else None
    if classes is not None and classes.ndim == 1 and y.dtype.kind in "iu" and int(y.min()) >= -1 and int(y.max()) < len(classes):
        return Labels(y.astype(np.int64), tuple(map(str, classes.tolist())))
    return from_values(y.tolist())
