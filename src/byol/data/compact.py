"""Columns that take little memory: names in one buffer, numbers in the narrowest type that holds them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeAlias, overload

import numpy as np
import numpy.typing as npt

Integers: TypeAlias = npt.NDArray[np.integer]
_CHUNK: Final = 16_384  # names at a time, so that what is made on the way stays small


def bytewise(name: str) -> bytes:
    """The key by which names are sorted: their bytes, so that the order is the same on every machine."""
    return name.encode("utf-8", "surrogateescape")


def narrow(values: Integers) -> Integers:
    """The same numbers, none negative, in the narrowest unsigned type that holds them all."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))), copy=False)


@dataclass(frozen=True, eq=False, repr=False)
class Names(Sequence[str]):
    """A sequence of names that costs a few bytes each more than their text; equal to a list of the same.

    `take` shares the buffer, so a subset of a source, and its reader, hold the text once.
    """

    buffer: bytes  # UTF-8, bytes that are no text as they were, a zero byte after every name
    starts: Integers  # (N,) where each name begins in the buffer
    lengths: Integers  # (N,) bytes

    @staticmethod
    def of(texts: Iterable[str]) -> Names:
        """Texts -> the same, held compactly."""
        if isinstance(texts, Names):
            return texts
        builder, left = NameBuilder(), iter(texts)
        while chunk := list(islice(left, _CHUNK)):
            builder.add([bytewise(t) for t in chunk])
        return builder.names()

    @staticmethod
    def joined(buffer: bytes, lengths: Integers) -> Names:
        """Names one after the other in the buffer, each with a zero byte behind it; ValueError when the lengths do not fit."""
        places = lengths.astype(np.int64)  # worked on in place: a column of a million numbers more is 8 MB
        places += 1
        np.cumsum(places, out=places)
        if len(buffer) != (places[-1] if len(places) else 0):
            raise ValueError(f"{len(lengths):,} names need another buffer than one of {len(buffer):,} bytes")
        places -= lengths
        places -= 1
        return Names(buffer, narrow(places), narrow(lengths))

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Names: ...
    def __getitem__(self, index: int | slice) -> str | Names:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        start = int(self.starts[index])
        return self.buffer[start : start + int(self.lengths[index])].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("utf-8", "surrogateescape") for name in self.raw())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # like a list

    def __repr__(self) -> str:
        first = ", ".join(map(repr, islice(self, 3)))
        return f"Names({len(self):,}: {first}{', ...' if len(self) > 3 else ''})"

    def raw(self) -> Iterator[bytes]:
        """Each name as its bytes."""
        buffer = self.buffer
        for at in range(0, len(self), _CHUNK):
            pairs = zip(self.starts[at : at + _CHUNK].tolist(), self.lengths[at : at + _CHUNK].tolist(), strict=True)
            yield from (buffer[start : start + length] for start, length in pairs)

    def take(self, rows: Integers) -> Names:
        """The names of these rows, in this order; the text is shared, not copied."""
        return Names(self.buffer, self.starts[rows], self.lengths[rows])

    def pieces(self) -> Iterator[bytes]:
        """Bytes that, one after the other, are the names with a zero byte after each."""
        if self._whole():
            yield self.buffer
            return
        text = np.frombuffer(self.buffer, np.uint8)
        for at in range(0, len(self), _CHUNK):
            sizes = self.lengths[at : at + _CHUNK].astype(np.int64) + 1
            ends = np.cumsum(sizes)
            # Byte k of the piece comes from k places behind where its name's own part of the piece begins.
            shift = np.repeat(self.starts[at : at + _CHUNK].astype(np.int64) - (ends - sizes), sizes)
            yield text[shift + np.arange(ends[-1])].tobytes()

    def _whole(self) -> bool:
        """True when the names are all of the buffer, in its order."""
        if len(self.buffer) != int(self.lengths.sum(dtype=np.int64)) + len(self):
            return False
        steps = self.lengths[:-1].astype(np.int64) + 1
        return not len(self) or bool(self.starts[0] == 0 and (np.diff(self.starts.astype(np.int64)) == steps).all())

    def folders(self) -> tuple[list[str], Integers]:
        """The distinct folders of the names, "a/b/" or "" for none, as they first come; (N,) which of them each name is in."""
        known: dict[bytes, int] = {}
        codes = np.empty(len(self), np.uint32)
        for at in range(0, len(self), _CHUNK):
            starts = self.starts[at : at + _CHUNK].astype(np.int64)
            ends = starts + self.lengths[at : at + _CHUNK]
            codes[at : at + _CHUNK] = _folder_codes(self.buffer, starts.tolist(), ends.tolist(), known)
        return [f.decode("utf-8", "surrogateescape") for f in known], narrow(codes)


def _folder_codes(buffer: bytes, starts: list[int], ends: list[int], known: dict[bytes, int]) -> list[int]:
    # rfind is -1 where there is no "/", and the slice is empty then.
    folders = (buffer[start : buffer.rfind(b"/", start, end) + 1] for start, end in zip(starts, ends, strict=True))
    return [known.setdefault(folder, len(known)) for folder in folders]


@dataclass
class NameBuilder:
    """Collects names into one buffer."""

    _buffer: bytearray = field(default_factory=bytearray)
    _lengths: array[int] = field(default_factory=lambda: array("I"))

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, names: Sequence[bytes]) -> None:
        """More names, as bytes."""
        if names:
            self._buffer += b"\0".join(names) + b"\0"
            self._lengths.extend(map(len, names))

    def names(self) -> Names:
        """All that were added, in that order."""
        return Names.joined(bytes(self._buffer), np.array(self._lengths, np.int64))
