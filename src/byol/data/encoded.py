"""Encoded images from anywhere (files, archive members, lists) -> one source with common channels and depth."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, Protocol

import numpy as np

from byol.data import sniff
from byol.data.decode import coerce, decode, file_error
from byol.data.header import Header, columns, inspect
from byol.data.labels import Labels, spread
from byol.data.parallel import each
from byol.data.source import Depth, Pixels, Progress, Rows, Skipped, Source, SourceKind, Unreadable, shown

GIVE: Final = "Give a folder with .jpg, .png, .webp, .tif, .bmp or .gif files, an archive, a list or an .npz."
_WIDTHS: Final[tuple[Depth, ...]] = ("uint8", "uint16", "float32")


class Blobs(Protocol):
    """Encoded files by index; pickles small."""

    @property
    def names(self) -> Sequence[str]: ...

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
    names: Sequence[str]

    def path(self, index: int) -> str:
        return os.path.join(self.root, self.names[index])

    def open(self, index: int) -> tuple[BinaryIO, int]:
        file = open(self.path(index), "rb")  # noqa: SIM115 - the caller closes it
        return file, os.fstat(file.fileno()).st_size

    def load(self, index: int) -> bytes:
        with open(self.path(index), "rb") as file:
            return file.read()


@dataclass(frozen=True)
class EncodedReader:
    """Decodes blobs to the channels and depth of the source."""

    blobs: Blobs
    channels: int
    dtype: Depth

    def read(self, index: int) -> Pixels:
        try:
            data = self.blobs.load(index)
        except OSError as error:
            raise Unreadable(file_error(error)) from error
        return coerce(decode(data), self.channels, self.dtype)


def source_of(
    blobs: Blobs,
    *,
    spec: str,
    kind: SourceKind,
    labels: Callable[[list[int]], Labels],
    limit: int | None = None,
    skipped: Sequence[Skipped] = (),
    ignored: int = 0,
    progress: Progress | None = None,
) -> Source:
    """Blobs -> the source of those that are readable images; `labels` gets the indices that are used.

    Every header is read, none decoded unless its file seems cut off. All grey: 1 channel; any colour: 3, grey repeated. The
    widest depth wins. When .npy files have other channel counts, the most frequent count wins and the others are skipped.
    """
    looked = each(lambda i: _look(blobs, i), range(len(blobs.names)), progress)
    headers = {i: h for i, h in enumerate(looked) if isinstance(h, Header)}
    bad = {i: s for i, s in enumerate(looked) if isinstance(s, str)}
    if not headers:
        raise ValueError(_nothing(spec, blobs, bad, skipped, ignored))
    channels, dtype, notes = _agree(list(headers.values()))
    bad |= {i: f"{h.kind.channels} channels where most have {channels}" for i, h in headers.items() if not _fits(h.kind.channels, channels)}
    used = [i for i in headers if i not in bad]
    found = labels(used)
    source = Source(
        spec=spec,
        names=[blobs.names[i] for i in used],
        reader=Rows(EncodedReader(blobs, channels, dtype), np.array(used, np.int64)),
        channels=channels,
        dtype=dtype,
        labels=found.values,
        classes=list(found.classes),
        skipped=[*skipped, *(Skipped(blobs.names[i], bad[i]) for i in sorted(bad))],
        kind=kind,
        headers=columns([headers[i] for i in used]),
        ignored=ignored + len(looked) - len(used) - len(bad),
        notes=tuple(n for n in (*notes, found.note) if n),
    )
    return limited(source, limit)


def limited(source: Source, limit: int | None) -> Source:
    """At most `limit` samples, evenly spread over the sorted names of each class (over all names when there are no labels)."""
    if limit is None or limit >= len(source):
        return source
    if limit < 1:
        raise ValueError(f"a limit of {limit} images leaves nothing; give 1 or more")
    note = f"{limit:,} of {len(source):,} images, evenly spread"
    return replace(source.subset(spread(len(source), limit, source.labels)), notes=(*source.notes, note))


def _look(blobs: Blobs, index: int) -> Header | str | None:
    """The header, or why there is none, or None for what is no image."""
    try:
        file, size = blobs.open(index)
        with file:
            return inspect(file, size, blobs.names[index])
    except OSError as error:
        return file_error(error)
    except Unreadable as error:
        return str(error)


def _agree(headers: Sequence[Header]) -> tuple[int, Depth, list[str]]:
    """Headers -> (channels, depth, notes) that all can be read as."""
    counts = Counter(h.kind.channels for h in headers)
    most = max(counts, key=lambda c: (counts[c], -c))
    channels = 3 if most in (1, 3) and 3 in counts else most
    depths = {h.kind.dtype for h in headers if _fits(h.kind.channels, channels)}
    widest = max(depths, key=_WIDTHS.index)
    notes = []
    if "float32" in depths and len(depths) > 1:
        notes.append("float and integer images together: the integers are divided by their maximum, so they span 0 to 1")
    return channels, widest, notes


def _fits(channels: int, common: int) -> bool:
    return channels == common or (channels == 1 and common == 3)


def _nothing(spec: str, blobs: Blobs, bad: dict[int, str], skipped: Sequence[Skipped], ignored: int) -> str:
    """The sentence for data without any image."""
    total = len(blobs.names) + len(skipped) + ignored
    if not total:
        return f"{spec} is empty. {GIVE}"
    if bad or skipped:
        first = Skipped(blobs.names[min(bad)], bad[min(bad)]) if bad else skipped[0]
        what = f"{shown(first.name)}: {first.reason}"
        return f"{spec} holds {total:,} files and none of them can be read as an image (first: {what}). {GIVE}"
    first_kind = f"{shown(blobs.names[0])}, {_kind(blobs, 0)}" if len(blobs.names) else "a hidden file"
    one = "file and it is not an image" if total == 1 else "files and none of them is an image"
    return f"{spec} holds {total:,} {one} (first: {first_kind}). {GIVE}"


def _kind(blobs: Blobs, index: int) -> str:
    try:
        file, _ = blobs.open(index)
        with file:
            return sniff.kind_of(file.read(sniff.HEAD))
    except (OSError, Unreadable) as error:
        return str(error)
