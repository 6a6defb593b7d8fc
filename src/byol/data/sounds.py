"""A folder, archive, list or .npz of sounds -> a source: mono clips of one rate, any part of which can be read alone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from byol.data import sniff
from byol.data.archive import first_names, is_archive, members_of
from byol.data.arrays import keys_of
from byol.data.compact import narrow
from byol.data.encoded import Blobs, Files, Looked, compact, limited, look, nothing
from byol.data.folder import files_of
from byol.data.labels import Labels, from_folders
from byol.data.lists import listed, taken
from byol.data.sound_clips import Clips, Cuts, EncodedClips, header_of
from byol.data.sound_npz import RATES, open_npz
from byol.data.sound_reader import SoundReader
from byol.data.source import Ids, Progress, Skipped, Source, shown

RATE: Final = 16_000  # Hz
LOW: Final = 8_000  # Hz
GIVE: Final = "Give a folder with .wav, .flac, .ogg or .mp3 files, an archive, a list or an .npz."
_MANY: Final = 1_000  # names that are looked at to tell sounds from images


def open_sounds(
    spec: str, path: str | Path, *, rate: int = RATE, limit: int | None = None, fresh: bool = False, progress: Progress | None = None
) -> Source:
    """The sounds of a folder, archive, list (path[, label]) or .npz -> their source; ValueError with one sentence.

    Each is one channel, the mean of those it has, at `rate` Hz: `headers.width` is its frames. Headers are read, sounds are not
    decoded (of FLAC and MP3 the last frame is). Labels, order, `limit` and `fresh` are those of images. An .npz holds all samples one
    after the other as x, or as the bytes of one sound file called flac, with offsets (N + 1,) and sr; or x is (N, frames).
    """
    if rate < 1:
        raise ValueError(f"a rate of {rate} Hz is no rate; give frames per second, such as {RATE}")
    path, header = Path(path), partial(header_of, rate=rate)
    if path.is_dir():
        known = files_of(path, fresh=fresh, progress=progress, header=header, of=f"-sound-{rate}")
        blobs = Files(str(path), known.listing.names)
        return sound_source(
            blobs, known.looked, rate, spec=spec, labels=_by_folder(blobs), limit=limit,
            skipped=known.listing.skipped, ignored=known.listing.ignored,
        )  # fmt: skip
    if not path.is_file():
        raise ValueError(f"{shown(spec)} {'is no regular file' if path.exists() else 'does not exist'}. {GIVE}")
    if path.suffix.lower() == ".npz":
        return limited(open_npz(spec, path, rate), limit)
    if is_archive(path):
        members, skipped, ignored = members_of(spec, path, sounds=True)
        return sound_source(
            members, look(members, progress, header), rate, spec=spec, labels=_by_folder(members), limit=limit,
            skipped=skipped, ignored=ignored,
        )  # fmt: skip
    files, found = listed(spec, path)
    return sound_source(files, look(files, progress, header), rate, spec=spec, labels=lambda used: taken(found, used), limit=limit)


def open_at_own_rate(spec: str, path: Path, *, limit: int | None = None, fresh: bool = False, progress: Progress | None = None) -> Source:
    """As `open_sounds`, at LOW Hz where no sound has more: at twice the rate half of the mel bands would be empty."""
    source = open_sounds(spec, path, limit=limit, fresh=fresh, progress=progress)
    return open_sounds(spec, path, rate=LOW, limit=limit, fresh=fresh, progress=progress) if is_low(source) else source


def is_low(source: Source) -> bool:
    """Whether no sound has more than LOW Hz as it is stored."""
    stored = [int(kind.colour.partition(" ")[0].replace(",", "")) for kind in source.headers.kinds]
    return max(stored, default=RATE) <= LOW


def is_sounds(path: Path) -> bool:
    """True for a folder, archive or list whose first names are those of sounds more often than of images, and for an .npz with a rate."""
    try:
        if path.is_file() and path.suffix.lower() == ".npz":
            return not set(RATES).isdisjoint(keys_of(path))
        names = list(first_names_of(path))
    except (OSError, ValueError):
        return False
    return sum(map(bool, map(sniff.sound_promised, names))) > sum(map(bool, map(sniff.promised, names)))


def first_names_of(path: Path) -> Iterator[str]:
    """Some of the names of a folder, archive or list, enough to tell what it holds."""
    if path.is_dir():
        return islice(_names_below(path), _MANY)
    if not path.is_file():
        return iter(())
    if is_archive(path):
        return iter(first_names(path, _MANY))
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head.startswith(b"PAR1"):
        return islice(iter(listed(str(path), path)[0].names), _MANY)
    return iter(re.split(r"[\s,;]+", head.decode("utf-8", "replace")))


def _names_below(folder: Path) -> Iterator[str]:
    """Of the files at any depth; of a folder with a million of them no more is listed than is asked for."""
    folders = [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        yield entry.name
        except OSError:  # opening the data says so
            continue


def sound_source(
    blobs: Blobs,
    looked: Looked,
    rate: int,
    *,
    spec: str,
    labels: Callable[[Ids], Labels],
    limit: int | None = None,
    skipped: Sequence[Skipped] = (),
    ignored: int = 0,
) -> Source:
    """Sound files and what a look at them found -> the source of those that can be read; `labels` gets the indices that are used."""
    used = np.flatnonzero(looked.headers.kind >= 0)
    if not len(used):
        raise ValueError(nothing(spec, blobs, looked.bad, skipped, ignored, what="a sound", give=GIVE))
    whole = len(used) == len(blobs.names)
    names = blobs.names if whole else blobs.names.take(used)
    headers = looked.headers if whole else looked.headers.take(used)
    clips: Clips = EncodedClips(blobs)
    if not whole:
        clips = Cuts(clips, names, narrow(used), np.zeros(len(used), np.uint8), np.zeros(len(used), np.uint8))
    found = labels(used)
    source = Source(
        spec=spec,
        names=names,
        reader=SoundReader(clips, rate, narrow(headers.width)),
        channels=1,
        dtype="float32",
        labels=found.values,
        classes=list(found.classes),
        skipped=[*skipped, *(Skipped(blobs.names[i], reason) for i, reason in sorted(looked.bad.items()))],
        kind="sound",
        modality="sound",
        rate=rate,
        headers=compact(headers, [True] * len(headers.kinds)),
        ignored=ignored + len(blobs.names) - len(used) - len(looked.bad),
        notes=(found.note,) if found.note else (),
    )
    return limited(source, limit)


def _by_folder(blobs: Blobs) -> Callable[[Ids], Labels]:
    return lambda used: from_folders(blobs.names if len(used) == len(blobs.names) else blobs.names.take(used))
