"""What a tar shard holds, from its headers and the first bytes of every image: names, places, sizes, labels. Kept on disk.

A shard's index is kept in `index/` of the cache folder, named by a digest of the shard's place, size and mark (ETag or time), so
that of a shard that changed is never used. It is a cache: without it, or when it is damaged or of another version, the shard is
read anew. Nothing in a shard is trusted: see `data.archive` for which members count.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt
import PIL

from byol import __version__, files
from byol.data import sniff
from byol.data.archive import InOneFile, plain_tar
from byol.data.compact import Integers, Names, narrow
from byol.data.encoded import Looked, look
from byol.data.source import Headers, Kind, Skipped, Unreadable

_FORMAT: Final = 1  # of the file; another number is not read
_COLUMNS: Final = ("offset", "size", "height", "width", "kind", "label")
_LABELS: Final = (".cls", ".json")
_FIELDS: Final = ("label", "cls", "class", "class_name")  # of a .json member, in the order of preference
MEMBER_LIMIT: Final = 1 << 30  # bytes; a larger member is no photo
_LABEL_LIMIT: Final = 1 << 20  # bytes of a member that may hold a label
_HEADER_LIMIT: Final = 1 << 20  # bytes of a tar header with everything that belongs to it

Place = tuple[int, int]  # offset and size of a member, bytes


@dataclass(frozen=True, eq=False)
class Part:
    """The images of one shard, in the order in which they lie there."""

    names: Names
    offset: Integers  # (n,) bytes
    size: Integers  # (n,) bytes
    looked: Looked
    label: Integers  # (n,) index into `texts`, -1 = none
    texts: tuple[str, ...]  # labels as they are written there
    skipped: tuple[Skipped, ...]
    ignored: int  # members that are neither images nor labels


def read_part(path: Path, name: str) -> Part:
    """A shard on the disk -> what it holds; raises Unreadable when that cannot be told. `name` is for messages."""
    try:
        with open(path, "rb") as file:
            members = plain_tar(cast(BinaryIO, _Guarded(file)), name)
            places = dict(sorted(members.places.items(), key=lambda item: item[1]))
            labels = _labels(file, places)
    except OSError as error:
        raise Unreadable((error.strerror or str(error)).lower()) from error
    except Exception as error:  # tarfile raises nearly every type of exception on damaged bytes
        raise Unreadable(f"no plain tar, or a damaged one ({str(error)[:60]}); compressed shards cannot be read at random") from error
    names, annotations = _images(list(places))
    part = Members(str(path), Names.of(names), *_columns([places[n] for n in names]))
    texts = {text: i for i, text in enumerate(dict.fromkeys(labels.values()))}
    label = np.array([texts[labels[k]] if (k := _key(n)) in labels else -1 for n in names], np.int64)
    skipped = tuple(Skipped(name, s.reason) for s in members.skipped)
    return Part(part.names, part.offset, part.size, look(part), label, tuple(texts), skipped, members.ignored + annotations)


class _Guarded:
    """A file for tarfile that hands out no more than a header at a time: one that claims gigabytes is damaged, and takes no memory."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _HEADER_LIMIT:
            raise ValueError(f"a header of {size:,} bytes")
        return self.file.read(size)


def _columns(places: list[Place]) -> tuple[Integers, Integers]:
    columns = np.array(places, np.int64).reshape(-1, 2)
    return narrow(columns[:, 0]), narrow(columns[:, 1])


def _key(name: str) -> str:
    """What the members of one sample share, by the rule of WebDataset: the path up to the first dot of the file's name."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _images(names: list[str]) -> tuple[list[str], int]:
    """The members that may be images; and how many are pictures about another one, as 1.seg.png beside 1.jpg is."""
    found = [n for n in names if not n.endswith(_LABELS)]
    plain = {_key(n) for n in found if _plain(n)}
    kept = [n for n in found if _plain(n) or _key(n) not in plain or sniff.promised(n) is None]
    return kept, len(found) - len(kept)


def _plain(name: str) -> bool:
    return name[len(_key(name)) :].count(".") == 1 and sniff.promised(name) is not None


def _labels(file: BinaryIO, places: dict[str, Place]) -> dict[str, str]:
    """{key: label} of the members that say one; .cls before .json."""
    found: dict[str, str] = {}
    for name, (offset, size) in places.items():
        key = _key(name)
        suffix = name[len(key) :]
        if suffix not in _LABELS or size > _LABEL_LIMIT or (key in found and suffix != ".cls"):
            continue
        file.seek(offset)
        text = file.read(size).decode("utf-8", "replace")
        label = text.strip() if suffix == ".cls" else _of_json(text)
        if label:
            found[key] = label
    return found


def _of_json(text: str) -> str:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(fields, dict):
        return ""
    values = (fields.get(name) for name in _FIELDS)
    return next((str(v).strip() for v in values if isinstance(v, str | int) and not isinstance(v, bool)), "")


@dataclass(frozen=True)
class Members(InOneFile):
    """Members of a tar on the disk, as blobs; each is opened for itself, so threads do not share a position."""

    path: str
    names: Names
    offset: Integers
    size: Integers

    def open(self, index: int) -> tuple[BinaryIO, int]:
        size = int(self.size[index])
        if size > MEMBER_LIMIT:
            raise Unreadable(f"holds {size:,} bytes")
        # With a buffer: Pillow reads in small steps.
        return cast(BinaryIO, io.BufferedReader(_Slice(self.path, int(self.offset[index]), size), 4096)), size

    def load(self, index: int) -> bytes:
        return read_at(self.path, int(self.offset[index]), int(self.size[index]))


def read_at(path: str | Path, offset: int, size: int) -> bytes:
    """So many bytes from there; fewer where the file ends."""
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        return file.read(size)


class _Slice(io.RawIOBase):
    """A stretch of a file as a file."""

    def __init__(self, path: str, offset: int, size: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with this
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        want = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._offset + self._at)
        got = self._file.readinto(buffer[:want]) or 0
        self._at += got
        return got

    def close(self) -> None:
        self._file.close()
        super().close()


def path_of(folder: Path, identity: Iterable[str | int]) -> Path:
    """Where the index of a shard lies that has this place, size and mark."""
    digest = hashlib.sha256("\0".join(map(str, identity)).encode("utf-8", "surrogateescape")).hexdigest()
    return folder / "index" / f"{digest[:32]}.npz"


def save(path: Path, part: Part) -> None:
    """Keeps the index; quietly does nothing where that is not possible."""
    with contextlib.suppress(OSError), files.atomic(path) as temporary:
        np.savez(temporary, **_arrays(part))  # type: ignore[arg-type]


def _arrays(part: Part) -> dict[str, npt.NDArray[np.generic]]:
    headers = part.looked.headers
    about = {
        **_stamp(),
        "kinds": headers.kinds,
        "bad": list(part.looked.bad.items()),
        "texts": part.texts,
        "skipped": [(s.name, s.reason) for s in part.skipped],
        "ignored": part.ignored,
    }
    columns = (part.offset, part.size, narrow(headers.height), narrow(headers.width), headers.kind, part.label)
    return {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "names": np.frombuffer(b"".join(part.names.pieces()), np.uint8),
        "lengths": part.names.lengths,
        **dict(zip(_COLUMNS, columns, strict=True)),
    }


def _stamp() -> dict[str, object]:
    """What has to be the same for an index to be of use: Pillow, say, decides what is readable."""
    return {"format": _FORMAT, "byol": __version__, "pillow": PIL.__version__}


def load(path: Path) -> Part | None:
    """The index that was kept; None when there is none that can be used."""
    try:
        # Opened here, because np.load leaves a damaged file open. Zip files carry checksums, so damage shows.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
            about = json.loads(kept["about"].tobytes())
            if {k: about[k] for k in _stamp()} != _stamp():
                return None
            names = Names.joined(kept["names"].tobytes(), kept["lengths"])
            offset, size, height, width, kind, label = (kept[c] for c in _COLUMNS)
    except Exception:  # numpy, zipfile and json raise nearly every type of exception on damaged bytes
        return None
    if {len(c) for c in (offset, size, height, width, kind, label)} != {len(names)}:
        return None
    kinds = tuple(Kind(*fields) for fields in about["kinds"])
    headers = Headers(height.astype(np.int32), width.astype(np.int32), size, kind, kinds)
    skipped = tuple(Skipped(name, reason) for name, reason in about["skipped"])
    return Part(names, offset, size, Looked(headers, dict(about["bad"])), label, tuple(about["texts"]), skipped, about["ignored"])


def joined(parts: list[tuple[str, Part]]) -> Part:
    """Parts and what their shards are called -> all of it as one, in that order; names begin with the shard's."""
    kinds: dict[Kind, int] = {}
    texts: dict[str, int] = {}
    bad: dict[int, str] = {}
    kind, label = array("h"), array("q")
    buffers: list[bytes] = []
    lengths: list[Integers] = []
    start = 0
    for name, part in parts:
        prefix = name.encode("utf-8", "surrogateescape") + b"/"
        buffers.append(b"".join(prefix + n + b"\0" for n in part.names.raw()))
        lengths.append(part.names.lengths.astype(np.int64) + len(prefix))
        kind.extend(_renumbered(part.looked.headers.kind, [kinds.setdefault(k, len(kinds)) for k in part.looked.headers.kinds]))
        label.extend(_renumbered(part.label, [texts.setdefault(t, len(texts)) for t in part.texts]))
        bad |= {start + i: reason for i, reason in part.looked.bad.items()}
        start += len(part.names)
    names = Names.joined(b"".join(buffers), _end_to_end(lengths))
    size = _end_to_end([p.size for _, p in parts])
    height, width = (_end_to_end([getattr(p.looked.headers, c) for _, p in parts]) for c in ("height", "width"))
    headers = Headers(height.astype(np.int32), width.astype(np.int32), size, np.array(kind), tuple(kinds))
    skipped = tuple(s for _, p in parts for s in p.skipped)
    offset, ignored = _end_to_end([p.offset for _, p in parts]), sum(p.ignored for _, p in parts)
    return Part(names, offset, size, Looked(headers, bad), np.array(label), tuple(texts), skipped, ignored)


def _renumbered(column: Integers, numbers: list[int]) -> list[int]:
    """The column with other numbers in place of 0, 1, ...; -1 stays."""
    found: list[int] = np.array([*numbers, -1])[column.astype(np.int64)].tolist()
    return found


def _end_to_end(columns: list[Integers]) -> Integers:
    return np.concatenate([c.astype(np.int64) for c in columns]) if columns else np.zeros(0, np.int64)
