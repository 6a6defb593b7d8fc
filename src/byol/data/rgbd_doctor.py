"""Are these RGB-D frames usable? Decodes everything once: depth that is there, poses, and how far the camera moves between frames."""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from byol.data.doctor import count, duplicates_of
from byol.data.doctor_report import WIDTH, Duplicates, bytes_text, counts_text, duplicates_text, layout, share, some, unreadable_text
from byol.data.parallel import each
from byol.data.rgbd_camera import FAR
from byol.data.source import Ids, Progress, Skipped, Source, Unreadable, shown

APART: Final = (10, 20)  # frames; BYOC trains and is tested on 20, and some are tested on 10
EMPTY: Final = 0.1  # of a frame; below this share of depth there is nothing to align
_BINS: Final = 1_000  # of depths up to FAR, a centimetre each


@dataclass(frozen=True)
class Motion:
    """Medians of how the camera moves between frames so far apart, where both poses are known."""

    apart: int  # frames
    pairs: int
    degrees: float
    metres: float


@dataclass(frozen=True, kw_only=True)
class RgbdReport:
    """Counts over the frames that decode; `unreadable` are those that do not."""

    spec: str
    frames: int
    sequences: int
    bytes: int  # as stored
    formats: dict[str, int]  # "jpeg + png"
    stored: dict[str, int]  # width x height as stored, of colour + depth where they differ
    unreadable: tuple[Skipped, ...]
    notes: tuple[str, ...] = ()
    valid: float = 0.0  # share of the pixels with depth
    depths: tuple[float, float, float] | None = None  # metres: the 1st percentile, the median, the 99th; None: there are none
    empty: tuple[str, ...] = ()  # frames with less than a tenth of their depth
    poses: int = 0  # known
    pairs: dict[int, int] = field(default_factory=dict)  # how many frames have another so many later
    motions: tuple[Motion, ...] = ()
    duplicates: Duplicates = field(default_factory=Duplicates)

    def doubts(self) -> list[str]:
        """What speaks against using the data as it is, worst first; empty when nothing does."""
        copies = self.duplicates.files - self.duplicates.groups
        checks = (
            (not self.pairs.get(APART[1]), f"no two frames of a sequence are {APART[1]} apart: --set apart=LEAST,MOST has to be smaller"),
            (len(self.unreadable) > 0.01 * self.frames, f"{share(len(self.unreadable), self.frames)} unreadable"),
            (len(self.empty) > 0.05 * self.frames, f"{share(len(self.empty), self.frames)} nearly without depth"),
            (self.valid < 0.5, f"depth in only {100 * self.valid:.0f} % of the pixels"),
            (copies > 0.2 * self.frames, f"{share(copies, self.frames)} copies of others"),
            (self.frames < 100, f"only {self.frames:,} frames: more would help most"),
        )
        return [text for hit, text in checks if hit]

    def verdict(self) -> str:
        """One sentence: "Good to go.", "Usable, but ..." or "Not usable: ..."."""
        if self.frames == 0:
            return f"Not usable: none of {len(self.unreadable):,} frames can be decoded."
        if self.frames < 2:
            return "Not usable: a single frame has nothing to be aligned with."
        if self.depths is None:
            return "Not usable: no frame has any depth."
        doubts = self.doubts()
        return f"Usable, but {'; '.join(doubts)}." if doubts else "Good to go."

    def lines(self) -> list[str]:
        """The report at 80 columns; the last line or lines are the verdict."""
        top = f"{shown(self.spec)}  {some(self.frames, 'frame')} in {some(self.sequences, 'sequence')}, {bytes_text(self.bytes)}"
        return [*textwrap.wrap(top, WIDTH), *layout(list(self._cells())), *textwrap.wrap(self.verdict(), WIDTH)]

    def _cells(self) -> Iterator[tuple[str, str]]:
        """(label, text) in the order in which they are shown."""
        yield "formats", f"{counts_text(self.formats)} (colour + depth)"
        yield "sizes", counts_text(self.stored)
        if self.depths is not None:
            low, middle, high = self.depths
            yield "depth", f"{100 * self.valid:.0f} % of the pixels, {low:.2f} to {high:.2f} m, median {middle:.2f} m"
        yield "poses", "none known" if not self.poses else "all known" if self.poses == self.frames else f"{self.poses:,} known"
        yield "unreadable", unreadable_text(self.unreadable)
        yield "duplicates", duplicates_text(self.duplicates)
        yield "pairs", ", ".join(f"{n:,} frames {apart} apart" for apart, n in self.pairs.items())
        for m in self.motions:
            yield f"{m.apart} apart", f"{m.degrees:.1f} degrees, {100 * m.metres:.0f} cm (median of {m.pairs:,} pairs)"
        if self.empty:
            more = f" and {len(self.empty) - 3:,} more" if len(self.empty) > 3 else ""
            yield "empty", f"{len(self.empty):,} nearly without depth: {', '.join(map(shown, self.empty[:3]))}{more}"
        for note in self.notes:
            yield "note", shown(note)

    def to_json(self) -> dict[str, object]:
        """The fields as plain JSON values, with the verdict and its reasons."""
        usable = self.frames >= 2 and self.depths is not None
        return {**asdict(self), "verdict": self.verdict(), "doubts": self.doubts(), "usable": usable}


@dataclass(frozen=True)
class _Look:
    """What is kept of one decoded frame."""

    content: bytes  # 16 bytes that are equal for equal frames
    valid: float  # share of the pixels
    depths: npt.NDArray[np.int64]  # (_BINS,) how many points are how far away


def doctor_rgbd(source: Source, progress: Progress | None = None) -> RgbdReport:
    """A source of `open_rgbd` -> the report on it; progress(done, total) is called while frames are decoded."""
    looks = each(lambda i: _look(source, i), range(len(source)), progress)
    source = source.without({i: look for i, look in enumerate(looks) if isinstance(look, str)})
    good = [look for look in looks if isinstance(look, _Look)]
    assert source.groups is not None
    assert source.poses is not None
    report = RgbdReport(
        spec=source.spec,
        frames=len(source),
        sequences=len(np.unique(source.groups)),
        bytes=int(source.headers.nbytes.sum()),
        formats=count(source.headers, "format"),
        stored=count(source.headers, "colour"),
        unreadable=tuple(source.skipped),
        notes=source.notes,
        poses=int(np.isfinite(source.poses[:, 0, 0]).sum()),
    )
    if not good:
        return report
    later = {apart: _later(source, apart) for apart in APART}
    motions = [_motion(source.poses, apart, *rows) for apart, rows in later.items()]
    return replace(
        report,
        valid=float(np.mean([look.valid for look in good])),
        depths=_spread(np.sum([look.depths for look in good], axis=0)),
        empty=tuple(source.names[i] for i, look in enumerate(good) if look.valid < EMPTY),
        pairs={apart: len(rows[0]) for apart, rows in later.items()},
        motions=tuple(m for m in motions if m is not None),
        duplicates=duplicates_of(source, [look.content for look in good]),
    )


def _look(source: Source, index: int) -> _Look | str:
    try:
        frame = source.read(index)
    except Unreadable as error:
        return str(error)
    z = frame[..., 5].astype(np.float64)
    there = z[z > 0]
    depths = np.bincount((there / FAR * _BINS).astype(np.int64).clip(0, _BINS - 1), minlength=_BINS)
    content = hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=16).digest()
    return _Look(content, there.size / z.size, depths)


def _spread(depths: npt.NDArray[np.int64]) -> tuple[float, float, float] | None:
    """(_BINS,) counts -> metres of the 1st percentile, the median, and the 99th."""
    if not depths.sum():
        return None
    below = np.cumsum(depths) / depths.sum()
    low, middle, high = ((float(np.searchsorted(below, q)) + 0.5) * FAR / _BINS for q in (0.01, 0.5, 0.99))
    return low, middle, high


def _later(source: Source, apart: int) -> tuple[Ids, Ids]:
    """Rows of frames, and those of the frames so many later in the same sequence."""
    assert source.groups is not None
    assert source.times is not None
    rows = {place: i for i, place in enumerate(zip(source.groups.tolist(), source.times.tolist(), strict=True))}
    pairs = [(i, rows[group, time + apart]) for (group, time), i in rows.items() if (group, time + apart) in rows]
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return first, second


def _motion(poses: npt.NDArray[np.float64], apart: int, first: Ids, second: Ids) -> Motion | None:
    known = np.isfinite(poses[first, 0, 0]) & np.isfinite(poses[second, 0, 0])
    a, b = poses[first[known]], poses[second[known]]
    if not len(a):
        return None
    # R_a^T R_b has this trace; with cosines of nearly 1 the angle comes from the sine of half of it.
    half = np.sqrt(((3 - np.einsum("nij,nij->n", a[:, :3, :3], b[:, :3, :3])) / 4).clip(0, 1))
    degrees = np.degrees(2 * np.arcsin(half))
    return Motion(apart, len(a), float(np.median(degrees)), float(np.median(np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1))))
