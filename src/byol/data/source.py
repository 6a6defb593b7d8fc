"""What every kind of data becomes: named samples that are read one at a time, and a list of what could not be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from byol.data.compact import Names, narrow
from byol.data.compact import bytewise as bytewise
from byol.data.patience import Waited

if TYPE_CHECKING:
    from torch import Tensor

Pixels: TypeAlias = npt.NDArray[np.generic]  # (H, W, C) of uint8, uint16 or float32
Ids: TypeAlias = npt.NDArray[np.int64]
Depth: TypeAlias = Literal["uint8", "uint16", "float32"]
SourceKind: TypeAlias = Literal["folder", "archive", "list", "shards", "array", "digits", "torchvision", "sound"]
Modality: TypeAlias = Literal["image", "recording", "sound", "rgbd", "volume"]  # what a sample is
Metric: TypeAlias = Literal["top-1", "mean per class", "11-point mAP", "mAP"]
Progress: TypeAlias = Callable[[int, int], None]  # (done, total); a total of 0 is not known yet


class Words(NamedTuple):
    """What samples are called on a screen."""

    one: str
    many: str
    rate: str  # so many a second
    channels: str  # what a sample has several of


WORDS: Final[Mapping[str, Words]] = {
    "image": Words("image", "images", "img/s", "channels"),
    "recording": Words("bin", "bins", "bins/s", "neurons"),
    "sound": Words("sound", "sounds", "snd/s", "channels"),
    "rgbd": Words("frame", "frames", "frm/s", "channels"),
    "volume": Words("volume", "volumes", "vol/s", "slices"),
}


class Unreadable(Exception):
    """A sample cannot be read; the text is the short reason that a person sees."""

    also: int = 1  # so many samples from this one on are lost for the same reason
    name: str = ""  # of what is lost; "": the sample's own


@dataclass(frozen=True)
class Skipped:
    """A sample that was left out, and why in a few words."""

    name: str
    reason: str


class Reader(Protocol):
    """Reads samples by index; pickles small, and opens its files on first use in each process."""

    def read(self, index: int, shrink: int = 1) -> Pixels:
        """(H, W, C), the same C and dtype for every index; raises Unreadable(reason).

        Where that saves work, 1/shrink (2, 4 or 8) of the height and width, rounded up.
        """
        ...


@runtime_checkable
class WindowReader(Protocol):
    """A reader of sounds that does not decode all of a clip for a part of it."""

    def window(self, index: int, start: int, frames: int) -> Pixels:
        """(1, frames, 1), the clip from frame `start` on, which may be below 0; zeros beyond its ends. Raises Unreadable."""
        ...


class Order(Protocol):
    """The order of training for a source that is not read well at random."""

    def span(self) -> int:
        """How many samples ahead it is told what comes next."""
        ...

    def ids(self, seed: int, epoch: int, positions: Tensor, batch: int) -> Tensor:
        """(B,) positions in the epoch -> (B,) int64 samples there; each sample is at one position."""
        ...

    def expect(self, now: Ids, later: Ids, share: int) -> None:
        """The samples that are read next, and some of those that follow a span later: this process reads `share` times as many."""
        ...

    def take(self, rows: npt.NDArray[np.integer]) -> Order:
        """The same for these rows of the source."""
        ...


class Kind(NamedTuple):
    """What a sample is by its header, before the source settles on common channels and depth."""

    format: str  # "jpeg", "png", ..., "array"
    colour: str  # "RGB", "grey", "palette", "CMYK", "5 channels", ...
    channels: int
    dtype: Depth


def _no(dtype: type[np.int32] | type[np.int64]) -> npt.NDArray[np.integer]:
    return np.zeros(0, dtype)


@dataclass(frozen=True, eq=False)
class Headers:
    """What is known of the samples without decoding them, a column each; all empty when nothing is."""

    height: npt.NDArray[np.integer] = field(default_factory=lambda: _no(np.int32))  # (N,) pixels; of sounds 1
    width: npt.NDArray[np.integer] = field(default_factory=lambda: _no(np.int32))  # (N,) pixels; of sounds frames
    nbytes: npt.NDArray[np.integer] = field(default_factory=lambda: _no(np.int64))  # (N,) as stored
    kind: npt.NDArray[np.integer] = field(default_factory=lambda: _no(np.int32))  # (N,) index into `kinds`
    kinds: tuple[Kind, ...] = ()

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, rows: npt.NDArray[np.integer]) -> Headers:
        """The columns of these rows."""
        if not len(self):
            return self
        return Headers(self.height[rows], self.width[rows], self.nbytes[rows], self.kind[rows], self.kinds)

    def one_size(self) -> bool:
        """True when every sample is known to have the same height and width."""
        return len(self) > 0 and bool(np.ptp(self.height) == 0 and np.ptp(self.width) == 0)


@dataclass(frozen=True, eq=False)
class Official:
    """What the creators of a data set, or the paper that compares on it, fix beside the images."""

    metric: Metric
    val: npt.NDArray[np.bool_]  # (N,) the samples that settings are chosen by
    targets: npt.NDArray[np.int64] | None = None  # (N, C) of several classes an image: 1 there, 0 absent, -1 not counted
    folds: Ids | None = None  # (N,) 0, 1, ...: each fold is tested on by what was trained on the others; None: there are none

    def take(self, rows: npt.NDArray[np.integer]) -> Official:
        """The same for these rows of the source."""
        targets, folds = (None if known is None else known[rows] for known in (self.targets, self.folds))
        return replace(self, val=self.val[rows], targets=targets, folds=folds)


@dataclass(frozen=True, eq=False)
class Dated:
    """Of samples that were made on dates: whose they are, and how their times are to be read."""

    subjects: Ids  # (N,) of which there may be several groups, such as angles of view; -1 = unknown
    known: npt.NDArray[np.bool_]  # (N,) whether the date is; without it a sample is in no group, and its time is 0
    unit: Literal["date", "age", "time"]  # times are days since `origin`; days of age; days as they were given
    origin: str  # ISO; of ages and times ""

    def take(self, rows: npt.NDArray[np.integer]) -> Dated:
        """The same for these rows of the source."""
        return replace(self, subjects=self.subjects[rows], known=self.known[rows])


@dataclass(frozen=True)
class Rows:
    """Some rows of a reader, in a given order."""

    reader: Reader
    rows: npt.NDArray[np.integer]

    def read(self, index: int, shrink: int = 1) -> Pixels:
        row = int(self.rows[index])
        return self.reader.read(row) if shrink == 1 else self.reader.read(row, shrink)


@dataclass(frozen=True, eq=False)
class Source:
    """Named samples of one channel count and depth, with labels where the data has them."""

    spec: str  # as the user gave it
    names: Names  # (N,) unique within a folder: the path relative to it, with "/"
    reader: Reader
    channels: int
    dtype: Depth
    labels: Ids | None  # (N,) index into `classes`, -1 = unknown; None: no labels at all
    classes: list[str]
    skipped: list[Skipped]
    kind: SourceKind
    headers: Headers = field(default_factory=Headers)
    ignored: int = 0  # files that are not images: never meant as samples, so not in `skipped`
    notes: tuple[str, ...] = ()  # what was assumed, in words, for the person to check
    order: Order | None = None  # of training; None: a full permutation
    official: Official | None = None  # validation, metric and several classes an image of a set that papers compare on
    groups: Ids | None = None  # (N,) what each sample is a part of, such as a trial or a clip; -1 = unknown; None: not said
    times: Ids | None = None  # (N,) when it was, in steps of the recording, or in days; None: not said
    dated: Dated | None = None  # where times are days: whose the samples are, and since when they count
    poses: npt.NDArray[np.float64] | None = None  # (N, 4, 4) camera to world, metres; NaN = not known; None: there are none
    modality: Modality = "image"
    rate: int = 0  # Hz, at which sounds are read

    def __len__(self) -> int:
        return len(self.names)

    @property
    def words(self) -> Words:
        """What its samples are called."""
        return WORDS[self.modality]

    def read(self, index: int, shrink: int = 1) -> Pixels:
        """Sample -> (H, W, C) raw values of `dtype`; raises Unreadable. `shrink`: see `Reader`."""
        # Readers of one's own that know no shrinking do not have to.
        return self.reader.read(index) if shrink == 1 else self.reader.read(index, shrink)

    def window(self, index: int, start: int, frames: int) -> Pixels:
        """Sound -> (1, frames, 1) of it from frame `start` on, zeros beyond its ends; raises Unreadable."""
        reader, row = (self.reader.reader, int(self.reader.rows[index])) if isinstance(self.reader, Rows) else (self.reader, index)
        return reader.window(row, start, frames) if isinstance(reader, WindowReader) else cut(reader.read(row), start, frames)

    def waited(self) -> list[Waited]:
        """The samples that had to be waited for since this was asked last, in this process."""
        inner = self.reader.reader if isinstance(self.reader, Rows) else self.reader
        ask = getattr(inner, "waited", None)  # readers of one's own need not wait
        return ask() if callable(ask) else []

    def subset(self, indices: Sequence[int] | Ids) -> Source:
        """The samples of these indices, in this order; classes and what was skipped stay."""
        rows = np.asarray(indices, np.int64).reshape(-1)
        if isinstance(self.reader, Rows):
            reader: Reader = Rows(self.reader.reader, self.reader.rows[rows])
        else:
            reader = Rows(self.reader, narrow(np.arange(len(self))[rows]))  # from the end for a negative index
        labels = None if self.labels is None else self.labels[rows]
        order = None if self.order is None else self.order.take(np.arange(len(self))[rows])
        official = None if self.official is None else self.official.take(rows)
        dated = None if self.dated is None else self.dated.take(rows)
        headers = self.headers.take(rows)
        groups, times = (None if known is None else known[rows] for known in (self.groups, self.times))
        poses = None if self.poses is None else self.poses[rows]
        return replace(
            self,
            names=self.names.take(rows),
            reader=reader,
            labels=labels,
            headers=headers,
            order=order,
            official=official,
            groups=groups,
            times=times,
            dated=dated,
            poses=poses,
        )

    def without(self, bad: dict[int, str]) -> Source:
        """The source less the samples {index: reason}, which join `skipped`."""
        if not bad:
            return self
        kept = np.setdiff1d(np.arange(len(self)), list(bad))
        more = [Skipped(self.names[i], reason) for i, reason in sorted(bad.items())]
        return replace(self.subset(kept), skipped=self.skipped + more)

    def fingerprint(self) -> str:
        """SHA-256 (hex) over names, sizes in bytes, labels and classes; of arrays also over their values."""
        digest = hashlib.sha256(f"{self.channels} {self.dtype} {len(self)}".encode())
        for piece in self.names.pieces():
            digest.update(piece)
        for text in ("", *self.classes):
            digest.update(bytewise(text) + b"\0")
        digest.update(np.ascontiguousarray(self.headers.nbytes, "<i8").tobytes())
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, "<i8").tobytes())
        for name, known in (("groups", self.groups), ("times", self.times)):
            if known is not None:
                digest.update(name.encode() + np.ascontiguousarray(known, "<i8").tobytes())
        if self.kind in ("array", "digits"):
            for i in range(len(self)):
                digest.update(_values(self.reader, i))
        return digest.hexdigest()


def cut(clip: Pixels, start: int, frames: int) -> Pixels:
    """(1, T, C) -> (1, frames, C) from frame `start` on, zeros beyond its ends; a copy."""
    out = np.zeros((1, frames, clip.shape[2]), clip.dtype)
    low, high = max(0, start), min(clip.shape[1], start + frames)
    if low < high:
        out[:, low - start : high - start] = clip[:, low:high]
    return out


def _values(reader: Reader, index: int) -> bytes:
    try:
        image = reader.read(index)
    except Unreadable as error:
        return str(error).encode()
    return str(image.shape).encode() + image.tobytes()


def channels_of(source: Source) -> str:
    """ "RGB", "5 channels", "187 neurons", "16,000 Hz mono", or "RGB-D"."""
    if source.modality == "rgbd":
        return "RGB-D"
    if source.modality == "sound":
        return f"{source.rate:,} Hz mono"
    usual = {1: "grey", 3: "RGB"} if source.modality == "image" else {}
    return usual.get(source.channels, f"{source.channels} {source.words.channels}")


def shown(name: str) -> str:
    """A name as it can be printed anywhere: line breaks and bytes that are no text appear as escapes."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
