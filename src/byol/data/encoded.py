"""Encoded images from anywhere (files, archive members, lists) -> one source with common channels and depth."""

from __future__ import annotations

import os
import stat
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, Protocol

import numpy as np

from byol.data import sniff
from byol.data.compact import Names, narrow
from byol.data.decode import coerce, decode, file_error
from byol.data.header import Header, inspect
from byol.data.labels import Labels, spread
from byol.data.parallel import stream
from byol.data.patience import Patience, Waited
from byol.data.source import Depth, Headers, Ids, Kind, Pixels, Progress, Rows, Skipped, Source, SourceKind, Unreadable, shown

GIVE: Final = "Give a folder with .jpg, .png, .webp, .tif, .bmp or .gif files, an archive, a list or an .npz."
LARGEST: Final = 1 << 30  # bytes; a file or a member that unpacks to more is no photo
_WIDTHS: Final[tuple[Depth, ...]] = ("uint8", "uint16", "float32")


class Blobs(Protocol):
    """Encoded files by index; pickles small."""

    @property
    def names(self) -> Names: ...

    @property
    def folder(self) -> str:
        """What has to be there for anything to be read."""
        ...

    def place(self, index: int) -> str:
        """The path of the file that holds it."""
        ...

    def open(self, index: int) -> tuple[BinaryIO, int]:
        """The file, open at its start, and its size in bytes; raises OSError or Unreadable."""
        ...

    def load(self, index: int) -> bytes:
        """The whole file; raises OSError or Unreadable."""
        ...


@dataclass(frozen=True)
class Files:
    """Files below a root; a name may also be an absolute path."""

    root: str
    names: Names

    @property
    def folder(self) -> str:
        return self.root

    def place(self, index: int) -> str:
        return os.path.join(self.root, self.names[index])

    def open(self, index: int) -> tuple[BinaryIO, int]:
        try:
            # Without a buffer: a header takes two reads, and a buffer's own would be more.
            file = open(self.place(index), "rb", buffering=0, opener=at_once)  # noqa: SIM115 - the caller closes it
        except ValueError:
            raise Unreadable("a zero byte in its name, which no file can have") from None
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size <= LARGEST:
            return file, status.st_size
        file.close()
        raise Unreadable(too_large(status.st_size) if stat.S_ISREG(status.st_mode) else "no regular file (a pipe or a device)")

    def load(self, index: int) -> bytes:
        file, size = self.open(index)
        with file:
            data = file.read(size)
            # A file may grow, and one call gives at most 2 GiB or what a network file system has at hand.
            while len(data) < size and (more := file.read(size - len(data))):
                data += more
        return data


def at_once(path: str, flags: int) -> int:
    """Opens a pipe too without waiting for its other end, so that it can be seen to be one."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def too_large(size: int) -> str:
    """The reason for a file that is refused for its size."""
    return f"{size:,} bytes, and an image may have {LARGEST:,}"


@dataclass(frozen=True)
class EncodedReader:
    """Decodes blobs to the channels and depth of the source; waits for what may come back (see `patience`)."""

    blobs: Blobs
    channels: int
    dtype: Depth
    patience: Patience = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", Patience(self.blobs.folder))

    def read(self, index: int, shrink: int = 1) -> Pixels:
        try:
            data = self.patience.read(self.blobs.names[index], self.blobs.place(index), lambda: self.blobs.load(index))
        except OSError as error:
            raise Unreadable(file_error(error)) from error
        return coerce(decode(data, shrink), self.channels, self.dtype)

    def waited(self) -> list[Waited]:
        """What had to be waited for since this was asked last."""
        return self.patience.waited()


@dataclass(frozen=True, eq=False)
class Looked:
    """What a look at every blob found."""

    headers: Headers  # a row for every blob; its kind is -1 for what is no image and for the unreadable
    bad: dict[int, str]  # the unreadable: {index: reason}


def image_header(blobs: Blobs, index: int) -> Header | None:
    """The header of an image, None for what is none; raises OSError or Unreadable."""
    file, size = blobs.open(index)
    with file:
        return inspect(file, size, blobs.names[index])


def look(blobs: Blobs, progress: Progress | None = None, read: Callable[[Blobs, int], Header | None] = image_header) -> Looked:
    """Reads every header; none is decoded unless its file seems cut off. progress(done, total) is called on the way."""
    # Numbers one after the other: a million header objects would take several times the memory of what is kept.
    height, width, nbytes, kind = array("i"), array("i"), array("q"), array("h")
    kinds: dict[Kind, int] = {}
    bad: dict[int, str] = {}
    patience = Patience(blobs.folder)
    for results in stream(lambda i: _look(blobs, i, patience, read), range(len(blobs.names)), progress):
        for found in results:
            if isinstance(found, str):
                bad[len(kind)] = found
            header = found if isinstance(found, Header) else _NO_HEADER
            height.append(header.height)
            width.append(header.width)
            nbytes.append(header.nbytes)
            kind.append(kinds.setdefault(header.kind, len(kinds)) if header is found else -1)
    numbers = (np.array(height), np.array(width), np.array(nbytes), np.array(kind))
    return Looked(Headers(*numbers, tuple(kinds)), bad)


_NO_HEADER: Final = Header(Kind("", "", 0, "uint8"), 0, 0, 0)


def source_of(
    blobs: Blobs,
    looked: Looked,
    *,
    spec: str,
    kind: SourceKind,
    labels: Callable[[Ids], Labels],
    limit: int | None = None,
    skipped: Sequence[Skipped] = (),
    ignored: int = 0,
) -> Source:
    """Blobs and what a look at them found -> the source of the readable images; `labels` gets the indices that are used.

    All grey: 1 channel; any colour: 3, grey repeated. The widest depth wins. When .npy files have other channel counts, the most
    frequent count wins and the others are skipped.
    """
    headers = looked.headers
    if not (headers.kind >= 0).any():
        raise ValueError(nothing(spec, blobs, looked.bad, skipped, ignored))
    channels, dtype, notes = _agree(headers)
    fits = [_fits(k.channels, channels) for k in headers.kinds]
    usable = np.array([*fits, False])[headers.kind]  # a kind of -1 is the last of these
    used = np.flatnonzero(usable)
    bad = looked.bad | {
        int(i): f"{headers.kinds[headers.kind[i]].channels} channels where most have {channels}"
        for i in np.flatnonzero(~usable & (headers.kind >= 0))
    }
    found = labels(used)
    reader = EncodedReader(blobs, channels, dtype)
    whole = len(used) == len(blobs.names)
    source = Source(
        spec=spec,
        names=blobs.names if whole else blobs.names.take(used),
        reader=reader if whole else Rows(reader, narrow(used)),
        channels=channels,
        dtype=dtype,
        labels=found.values,
        classes=list(found.classes),
        skipped=[*skipped, *(Skipped(blobs.names[i], bad[i]) for i in sorted(bad))],
        kind=kind,
        headers=compact(headers if whole else headers.take(used), fits),
        ignored=ignored + len(blobs.names) - len(used) - len(bad),
        notes=tuple(n for n in (*notes, found.note) if n),
    )
    return limited(source, limit)


def compact(headers: Headers, used: Sequence[bool]) -> Headers:
    """The same with only the kinds that are used, in narrow columns."""
    numbers = narrow(np.maximum(np.cumsum(used) - 1, 0))
    kinds = tuple(k for k, use in zip(headers.kinds, used, strict=True) if use)
    return Headers(headers.height, headers.width, narrow(headers.nbytes), numbers[headers.kind], kinds)


def limited(source: Source, limit: int | None) -> Source:
    """At most `limit` samples, evenly spread over the sorted names of each class (over all names when there are no labels)."""
    if limit is None or limit >= len(source):
        return source
    what = source.words.many
    if limit < 1:
        raise ValueError(f"a limit of {limit} {what} leaves nothing; give 1 or more")
    note = f"{limit:,} of {len(source):,} {what}, evenly spread"
    return replace(source.subset(spread(len(source), limit, source.labels)), notes=(*source.notes, note))


def _look(blobs: Blobs, index: int, patience: Patience, read: Callable[[Blobs, int], Header | None]) -> Header | str | None:
    """The header, or why there is none, or None for what is no image."""
    try:
        return patience.read(blobs.names[index], blobs.place(index), lambda: read(blobs, index))
    except OSError as error:
        return file_error(error)
    except Unreadable as error:
        return str(error)


def _agree(headers: Headers) -> tuple[int, Depth, list[str]]:
    """Headers -> (channels, depth, notes) that all can be read as."""
    counts: Counter[int] = Counter()
    for number, kind in enumerate(headers.kinds):
        counts[kind.channels] += int(np.count_nonzero(headers.kind == number))
    most = max(counts, key=lambda c: (counts[c], -c))
    channels = 3 if most in (1, 3) and 3 in counts else most
    depths = {k.dtype for k in headers.kinds if _fits(k.channels, channels)}
    widest = max(depths, key=_WIDTHS.index)
    notes = []
    if "float32" in depths and len(depths) > 1:
        notes.append("float and integer images together: the integers are divided by their maximum, so they span 0 to 1")
    return channels, widest, notes


def _fits(channels: int, common: int) -> bool:
    return channels == common or (channels == 1 and common == 3)


def nothing(
    spec: str, blobs: Blobs, bad: dict[int, str], skipped: Sequence[Skipped], ignored: int, *, what: str = "an image", give: str = GIVE
) -> str:
    """The sentence for data without any `what`; `give` says what to give instead."""
    total = len(blobs.names) + len(skipped) + ignored
    if not total:
        return f"{spec} is empty. {give}"
    if bad or skipped:
        first = Skipped(blobs.names[min(bad)], bad[min(bad)]) if bad else skipped[0]
        worst = f"{short(shown(first.name))}: {first.reason}"
        return f"{spec} holds {total:,} files and none of them can be read as {what} (first: {worst}). {give}"
    first_kind = f"{short(shown(blobs.names[0]))}, {kind_of(blobs, 0)}" if len(blobs.names) else "a hidden file"
    one = f"file and it is not {what}" if total == 1 else f"files and none of them is {what}"
    return f"{spec} holds {total:,} {one} (first: {first_kind}). {give}"


def short(name: str) -> str:
    """A name that fits into a sentence."""
    return name if len(name) <= 120 else f"{name[:80]}...{name[-30:]}"


def kind_of(blobs: Blobs, index: int) -> str:
    """What a file that is no sample is, in words."""
    try:
        file, _ = blobs.open(index)
        with file:
            return sniff.kind_of(file.read(sniff.HEAD))
    except (OSError, Unreadable) as error:
        return str(error)
