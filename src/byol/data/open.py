"""DATA in any form that the command line takes -> a source."""

from __future__ import annotations

import difflib
import os
import zipfile
from pathlib import Path
from typing import Final, TypeAlias

from byol.data import sniff
from byol.data.archive import is_archive, open_archive
from byol.data.arrays import open_array, open_array_file
from byol.data.dated import by_names
from byol.data.encoded import limited
from byol.data.folder import open_folder
from byol.data.lists import open_list
from byol.data.named import known, names, open_named
from byol.data.part import divided, part_of
from byol.data.recordings import first_bins, is_recording, open_recording
from byol.data.rgbd import first_frames, is_rgbd, open_rgbd
from byol.data.shards import is_shards, open_shards
from byol.data.sound_sets import is_sound_set, open_set_at_own_rate
from byol.data.sounds import is_sounds, open_at_own_rate
from byol.data.source import Pixels, Progress, Source, shown
from byol.data.transfer_sets import is_transfer, open_transfer
from byol.data.volumes import is_volumes, open_volumes

Spec: TypeAlias = str | Path | Pixels | tuple[Pixels, Pixels | list[int] | list[str]]
GIVE: Final = (
    "Give a folder with images (.jpg, .png, .webp, .tif, .bmp, .gif) or sounds (.wav, .flac, .ogg, .mp3), an archive, a list or an .npz."
)
_LISTS: Final = (".txt", ".csv", ".tsv", ".lst", ".list", ".parquet")


def open_source(
    spec: Spec,
    *,
    limit: int | None = None,
    download: bool = False,
    root: Path | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Source:
    """A folder, archive, list, tar shards, .npz/.npy, recording, name, array, or (array, classes) -> its source, or ValueError.

    A folder, archive, list or .npz of sounds is known by itself (`sounds.is_sounds`), and so are a folder of RGB-D sequences
    (`rgbd.is_rgbd`), a folder or list of volumes (`volumes.is_volumes`), and images of subjects on dates (`dated`).
    DATA#A:B is a part of any data (`part`).

    Headers are read, pictures are not decoded. `limit` keeps at most so many images, evenly spread over the sorted names of
    each class. A path that exists comes before a name. Named sets live in `root` (~/.cache/byol) and are fetched only with
    `download`; NAME:FOLDER is a set of `transfer_sets` or `sound_sets`, its training and validation part. What is known of a
    large folder from the last time is used while the folder looks unchanged (data.index); `fresh` reads it anew.
    progress(done, total) is called while headers are read, before with a total of 0 while files are listed.
    """
    if isinstance(spec, tuple):
        return open_array(spec[0], spec[1], limit=limit)
    if not isinstance(spec, str | Path):
        return open_array(spec, limit=limit)
    text, part = divided(str(spec))
    if part:
        whole = open_source(text, download=download, root=root, fresh=fresh, progress=progress)
        return _limited(part_of(whole, str(spec), part), limit)
    path = Path(text).expanduser()
    if is_transfer(text) and not path.exists():
        return open_transfer(text, limit=limit, progress=progress)
    if is_sound_set(text) and not path.exists():
        name, _, folder = text.partition(":")
        return open_set_at_own_rate(name, Path(folder).expanduser(), limit=limit, progress=progress)
    if is_shards(text, path):
        return open_shards(text, limit=limit, fresh=fresh, progress=progress)
    if is_sounds(path):
        spec = f"{text.rstrip('/')}/" if path.is_dir() else text
        return open_at_own_rate(spec, path, limit=limit, fresh=fresh, progress=progress)
    if is_volumes(path):
        spec = f"{text.rstrip('/')}/" if path.is_dir() else text
        return open_volumes(spec, path, limit=limit, fresh=fresh, progress=progress)
    if is_rgbd(path):
        return open_rgbd(f"{text.rstrip('/')}/", path, limit=limit, progress=progress)
    if path.is_dir():
        return by_names(open_folder(f"{text.rstrip('/')}/", path, limit=limit, fresh=fresh, progress=progress))
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise ValueError(f"{shown(text)} is neither a folder nor a regular file. {GIVE}")
    if path.exists():
        return _open_file(text, path, limit, progress)
    if known(text):
        return open_named(text, limit=limit, download=download, root=root, progress=progress)
    raise ValueError(_missing(text, path))


def _limited(source: Source, limit: int | None) -> Source:
    """At most so many samples, as each kind of data is limited."""
    if limit is None or limit >= len(source):
        return source
    return {"recording": first_bins, "rgbd": first_frames}.get(source.modality, limited)(source, limit)


def _open_file(spec: str, path: Path, limit: int | None, progress: Progress | None) -> Source:
    """A file by its content; only a plain-text list is known by its name."""
    try:
        with open(path, "rb") as file:
            head = file.read(sniff.HEAD)
    except OSError as error:
        raise ValueError(f"{spec} cannot be read ({(error.strerror or 'unknown error').lower()})") from error
    form = sniff.format_of(head)
    if form == "NPY" or _holds_arrays(path, head):
        return (open_recording if is_recording(path) else open_array_file)(spec, path, limit=limit)
    if is_archive(path):
        return by_names(open_archive(spec, path, limit=limit, progress=progress))
    if head[:4] == b"PAR1" or (path.suffix.lower() in _LISTS and head):
        return open_list(spec, path, limit=limit, progress=progress)
    if form is not None:
        raise ValueError(f"{spec} is a single image; give the folder that it lies in, or a list of several")
    raise ValueError(f"{spec} is {sniff.kind_of(head)}, which is no data set. {GIVE}")


def _holds_arrays(path: Path, head: bytes) -> bool:
    """True for an .npz (see `recordings.is_recording`), also for one with another name that holds x alone or x and y."""
    if not head.startswith(b"PK"):
        return False
    if path.suffix.lower() == ".npz":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
    except Exception:  # damaged: open_archive says how
        return False
    return "x.npy" in members and members <= {"x.npy", "y.npy"}


def _missing(text: str, path: Path) -> str:
    """The sentence for a path that does not exist, with the nearest name that does."""
    try:
        beside = [entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(path.parent) if not entry.name.startswith(".")]
    except OSError:
        return f"{text} does not exist, nor does {shown(str(path.parent))}/"
    near = difflib.get_close_matches(path.name, [b.rstrip("/") for b in beside], n=1, cutoff=0.6)
    if near:
        name = next(b for b in beside if b.rstrip("/") == near[0])
        folder = text[: len(text.rstrip("/")) - len(path.name)]
        return f"{text} does not exist; did you mean {shown(folder + name)}?"
    named = difflib.get_close_matches(text.lower(), names(), n=1, cutoff=0.6)
    if named:
        return f"{text} does not exist; did you mean the data set {named[0]}?"
    return f"{text} does not exist, and no data set is called so (byol list data shows them)"
