"""What is known of a large folder, kept on disk: the next start reads this instead of a million headers.

It counts while every folder below has the time of its last change as then, and 1,000 files spread over all of them have their size
and time. Files rewritten in place elsewhere go unnoticed until they are read. It is a cache: without it, or when it is
damaged or of another version, the folder is read anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypedDict, cast, get_type_hints

import numpy as np
import numpy.typing as npt
import PIL

from byol import __version__, files
from byol.data.arrays import unpacked
from byol.data.compact import Names, narrow
from byol.data.encoded import Files, Looked
from byol.data.listing import Listing
from byol.data.source import Depth, Headers, Kind, Skipped
from byol.stored import convert, parse

MANY: Final = 10_000  # files; fewer are read anew in a second or so
SAMPLE: Final = 1_000  # files that are compared
_FORMAT: Final = 1  # of the file; another number is not read
_COLUMNS: Final = ("height", "width", "nbytes", "kind")

# (S, 2): bytes and time of the last change, ns, of the files of the sample; -1 where there is none.
Marks: TypeAlias = npt.NDArray[np.int64]


class _About(TypedDict):
    kinds: list[tuple[str, str, int, Depth]]
    bad: list[str]
    skipped: list[tuple[str, str]]
    ignored: int
    folders: list[str]


@dataclass(frozen=True, eq=False)
class Known:
    """A folder's files and what a look at each found."""

    listing: Listing
    looked: Looked


def path_of(root: Path, of: str = "") -> Path:
    """Where a folder's index lies: of its images, or of what else it is read for."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "byol" / "index" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]}{of}.npz"


def marks(blobs: Files) -> Marks:
    """Size and time of up to 1,000 files, evenly spread; none for a folder without an index."""
    n = len(blobs.names)
    size = min(SAMPLE, n) if n >= MANY else 0
    found = np.full((size, 2), -1, np.int64)
    for row, i in enumerate((np.arange(size) * 2 + 1) * n // (2 * max(1, size))):
        with contextlib.suppress(OSError):
            status = os.stat(blobs.place(int(i)))
            found[row] = status.st_size, status.st_mtime_ns
    return found


def save(root: Path, known: Known, sample: Marks, of: str = "") -> None:
    """Keeps what is known of a folder with many files; quietly does nothing where that is not possible."""
    if len(known.listing.names) < MANY:
        return
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: no home folder
        path = path_of(root, of)
        if not known.listing.lasting:
            path.unlink(missing_ok=True)  # not to be trusted either: it may have been written within the same tick
            return
        with files.atomic(path) as temporary:
            np.savez(temporary, **_arrays(root, known, sample))  # type: ignore[arg-type]


def _arrays(root: Path, known: Known, sample: Marks) -> dict[str, npt.NDArray[np.generic]]:
    listing, headers = known.listing, known.looked.headers
    about = {
        **_stamp(root),
        "kinds": headers.kinds,
        "bad": list(known.looked.bad.values()),
        "skipped": [(s.name, s.reason) for s in listing.skipped],
        "ignored": listing.ignored,
        "folders": list(listing.folders),
    }
    return {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "sample": sample,
        "times": np.array(list(listing.folders.values()), np.int64),
        "names": np.frombuffer(b"".join(listing.names.pieces()), np.uint8),
        "lengths": listing.names.lengths,
        "bad": np.array(list(known.looked.bad), np.int64),
        "height": narrow(headers.height),
        "width": narrow(headers.width),
        "nbytes": narrow(headers.nbytes),
        "kind": headers.kind,
    }


def _stamp(root: Path) -> dict[str, object]:
    """What has to be the same for an index to be of use: Pillow, say, decides what is readable."""
    return {"format": _FORMAT, "byol": __version__, "pillow": PIL.__version__, "folder": str(root.resolve())}


def load(root: Path, of: str = "") -> Known | None:
    """What was known of the folder, if it still looks as it did then; None: read it anew."""
    try:
        # Opened here, because np.load leaves a damaged file open. Zip files carry checksums, so damage shows.
        with open(path_of(root, of), "rb") as file, np.load(file, allow_pickle=False) as kept:
            about = _about(unpacked(kept, "about").tobytes())
            if {k: v for k, v in about.items() if k in _stamp(root)} != _stamp(root) or not _same_folders(
                root, about["folders"], _integers(kept, "times")
            ):
                return None
            known = _known(about, {k: _integers(kept, k) for k in ("names", "lengths", "times", "bad", *_COLUMNS)})
            blobs = Files(str(root), known.listing.names)
            return known if np.array_equal(unpacked(kept, "sample"), marks(blobs)) else None
    except Exception:  # numpy, zipfile and json raise nearly every type of exception on damaged bytes
        return None


def _about(text: bytes) -> _About:
    """What is stored as JSON; ValueError where it is of another shape."""
    about = convert(parse(text), dict[str, object], "about")
    for key, wanted in get_type_hints(_About).items():
        convert(about[key], wanted, key)  # type: ignore[index]  # a dict by now
    return cast(_About, about)


def _integers(kept: np.lib.npyio.NpzFile, key: str) -> npt.NDArray[Any]:
    column = unpacked(kept, key)
    if column.ndim != 1 or column.dtype.kind not in "iu":
        raise ValueError(f"{key} is no column of integers")
    return column


def _same_folders(root: Path, folders: list[str], times: npt.NDArray[np.int64]) -> bool:
    return all(os.stat(os.path.join(root, f)).st_mtime_ns == t for f, t in zip(folders, times.tolist(), strict=True))


def _known(about: _About, kept: dict[str, npt.NDArray[np.integer]]) -> Known:
    """The stored columns as they were; raises when they do not fit together."""
    names = Names.joined(kept["names"].tobytes(), kept["lengths"])
    kinds = tuple(Kind(*fields) for fields in about["kinds"])
    height, width, nbytes, kind = (kept[c] for c in _COLUMNS)
    if {len(c) for c in (height, width, nbytes, kind)} != {len(names)} or len(kept["names"]) != kept["names"].nbytes:
        raise ValueError("columns of different lengths")
    for column, low, high in (
        (height, 0, 2**31),
        (width, 0, 2**31),
        (nbytes, 0, 2**63),
        (kind, -1, len(kinds)),
        (kept["bad"], 0, len(names)),
    ):
        if len(column) and not low <= int(column.min()) <= int(column.max()) < high:
            raise ValueError("numbers that no look gives")
    headers = Headers(height.astype(np.int32), width.astype(np.int32), nbytes, kind, kinds)
    bad = dict(zip(kept["bad"].tolist(), about["bad"], strict=True))
    folders = dict(zip(about["folders"], kept["times"].tolist(), strict=True))
    skipped = [Skipped(name, reason) for name, reason in about["skipped"]]
    listing = Listing(names, skipped, about["ignored"], folders, lasting=True)
    return Known(listing, Looked(headers, bad))
