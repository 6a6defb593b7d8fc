"""Data larger than a disk: tar shards, as WebDataset lays them out, here or elsewhere -> a source.

    shards/train-{000000..000146}.tar       braces: a range, or words with commas between
    shards/train-*.tar, shards/             a pattern; a folder of tars
    s3://bucket/train-{0000..0099}.tar      whatever fsspec reads: s3, gs, https, file, memory, ...

**Index.** A look at every shard notes where each image begins, its size, kind and label (`.cls`, or `label` in a `.json`, of the same key).
So the number of samples is known, each has an id, and a run is a function of (seed, step) as over any other data. A local shard is
indexed from its headers; a remote one by one pass through it, because asking for the header of each image alone is as many
requests as images, and fewer bytes only where images are large. The pass leaves a copy in the cache, the index is kept for good.

**Local shards** are read in place at random: a full permutation, no buffer, no copy.

**Remote shards** are read in windows (`data.windows`), because a full permutation would ask for each sample alone. A window is 16 shards,
or S with `#window=S` behind the URL, and `#window=all` does without windows. It is part of the name of the data because the order of
samples depends on it. Slow disks: `file:///mnt/nfs/train-{0..99}.tar` is treated as remote. Copies of shards lie in $BYOL_CACHE
(~/.cache/byol/shards), $BYOL_CACHE_LIMIT bytes at most (50 GB): no order depends on those. Which samples a step has needs no state, so
a resumed run goes on in the middle of a window and fetches what that window needs from there on.

**Processes.** One that reads the rows r B/P .. (r+1) B/P of every batch fetches the shards of its lanes, 1/P of the bytes, and single
samples of a neighbour; no less than 1/S. With `#window=all` it fetches its samples alone, 1/P exactly. Processes of one
machine share the cache, and fetch each shard once.

**Errors.** What fails is tried 4 times. A shard that cannot be indexed is listed as skipped; one that fails later is, too, and the next
shard's samples take the place of its own. Members are data only: see `data.archive`.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from byol.data import remote, shard_index
from byol.data.compact import bytewise, narrow
from byol.data.decode import file_error
from byol.data.encoded import source_of
from byol.data.labels import Labels, from_folders, from_values
from byol.data.listing import hidden
from byol.data.part import divided
from byol.data.remote import Remote
from byol.data.shard_cache import FOLDER, LIMIT, Cache, cache_folder, open_cache
from byol.data.shard_index import Part
from byol.data.shard_reader import ShardOrder, Shards
from byol.data.source import Ids, Progress, Rows, Skipped, Source, Unreadable

WINDOW: Final = 16
_MOST: Final = 100_000  # shards; more are a slip of the pen
_LOOKS, _INDEXING = 16, 4  # at a time
_BRACES: Final = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{},]*(?:,[^{},]*)+)\}")
_GLOB: Final = re.compile(r"[*?[]")
_BESIDE: Final = (".json", ".txt", ".idx", ".index", ".md5", ".sha256", ".csv", ".md")  # files that may lie beside tars
_TICK_NS: Final = 2_000_000_000  # a file that changed so lately may change again without another time


def is_shards(spec: str, path: Path) -> bool:
    """True for URLs, and where nothing has this very name for braces and patterns; for a folder that holds tars and nothing else."""
    if remote.is_url(spec):
        return True
    if path.is_dir():
        return _only_tars(path)
    return not path.exists() and (_BRACES.search(spec) or _GLOB.search(spec)) is not None


def _only_tars(folder: Path) -> bool:
    """Whether all that a person would see there are tars, and perhaps notes beside them; ends at the first that is not."""
    tars = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if hidden(entry.name):
                    continue
                suffix = os.path.splitext(entry.name)[1].lower()
                if not entry.is_file() or suffix not in (".tar", *_BESIDE):
                    return False
                tars += suffix == ".tar"
    except OSError:
        return False
    return tars > 0


def present(spec: str) -> bool:
    """Whether a path is here, or any of the shards that braces or a pattern stand for; of DATA#A:B, whether DATA is."""
    spec = divided(spec)[0]
    if Path(spec).exists() or remote.is_url(spec):
        return Path(spec).exists()
    return is_shards(spec, Path(spec)) and any(glob.glob(p) for p in islice(_expanded(spec), _MOST))


def open_shards(spec: str, *, limit: int | None = None, fresh: bool = False, progress: Progress | None = None) -> Source:
    """Shards -> the source of all their images, in the order of the shards and of the images in each; ValueError in one sentence.

    progress(shards done, all) is called while they are indexed.
    """
    far = remote.is_url(spec)
    pattern, window = _options(spec) if far else (spec, 0)
    cache = open_cache() if far else None
    places = _listed(pattern)
    looks = _looked(places, far)
    parts = _parts(looks, cache, fresh, progress)
    shards = [shard for shard, part in zip(looks, parts, strict=True) if isinstance(shard, Remote) and isinstance(part, Part)]
    titles = _titles(places)
    good = [(title, part) for title, part in zip(titles, parts, strict=True) if isinstance(part, Part)]
    lost = [Skipped(title, part) for title, part in zip(titles, parts, strict=True) if isinstance(part, str)]
    whole = shard_index.joined(good)
    starts = narrow(np.concatenate([[0], np.cumsum([len(part.names) for _, part in good])]).astype(np.int64))
    total = sum(s.size for s in shards)
    if cache is not None and window:
        _room(spec, shards, window, cache)
    fetches = cache is not None and (window > 0 or total <= cache.limit)
    blobs = Shards(tuple(shards), tuple(t for t, _ in good), whole.names, starts, whole.offset, whole.size, cache, fetches)
    source = source_of(
        blobs,
        whole.looked,
        spec=spec,
        kind="shards",
        labels=lambda used: _labels(whole, used),
        limit=limit,
        skipped=[*lost, *whole.skipped],
        ignored=whole.ignored,
    )
    if cache is None:
        return source
    return replace(source, order=ShardOrder(blobs, source.reader.rows if isinstance(source.reader, Rows) else None, window))


def _options(spec: str) -> tuple[str, int]:
    """A URL -> what comes before `#`, and the shards of a window; 0: all."""
    url, mark, option = spec.partition("#")
    if not mark:
        return url, WINDOW
    match = re.fullmatch(r"window=(all|[1-9]\d{0,5})", option)
    if match is None:
        raise ValueError(f"{spec}: behind # there may be window=N, a number of shards, or window=all; not {option!r}")
    return url, 0 if match[1] == "all" else int(match[1])


def _listed(pattern: str) -> list[str]:
    """The places that a spec stands for: braces written out, patterns looked up, a folder's tars; ValueError when there are none."""
    found: list[str] = []
    for place in islice(_expanded(pattern), _MOST + 1):
        found += _matches(place) if _GLOB.search(place.partition("?")[0] if remote.is_url(place) else place) else [place]
    if len(found) > _MOST:
        raise ValueError(f"{pattern} stands for more than {_MOST:,} shards; check the numbers in its braces")
    if len(found) == 1 and Path(found[0]).expanduser().is_dir():
        found = sorted(
            (e.path for e in os.scandir(Path(found[0]).expanduser()) if e.name.endswith(".tar") and not hidden(e.name)), key=bytewise
        )
    if not found:
        raise ValueError(f"no file matches {pattern}; check the folder and the pattern")
    return [str(Path(f).expanduser()) if not remote.is_url(f) else f for f in found]


def _expanded(pattern: str) -> Iterator[str]:
    """`a-{08..10}.tar` -> a-08.tar, a-09.tar, a-10.tar; `{x,y}` likewise; several braces in turn."""
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    first, last, words = match.groups()
    if words is None and int(first) > int(last):
        raise ValueError(f"{pattern}: the braces count down, from {first} to {last}; write the smaller number first")
    middles = words.split(",") if words is not None else (str(i).zfill(len(first)) for i in range(int(first), int(last) + 1))
    for middle in middles:
        yield from _expanded(pattern[: match.start()] + middle + pattern[match.end() :])


def _matches(pattern: str) -> list[str]:
    if not remote.is_url(pattern):
        return sorted(glob.glob(str(Path(pattern).expanduser())), key=bytewise)
    try:
        return remote.matching(pattern)
    except Unreadable as error:
        raise ValueError(f"{pattern} cannot be listed ({error}); name its shards by a range in braces") from None


def _looked(places: list[str], far: bool) -> list[Remote | str]:
    """What each shard is now, or why that cannot be told."""
    if far:
        remote.file_system(places[0])  # a package that is missing is no fault of the shards
    return list(remote.at_a_time(_LOOKS, _remote if far else _local, places))


def _remote(url: str) -> Remote | str:
    try:
        return remote.found(url)
    except Unreadable as error:
        return str(error)


def _local(path: str) -> Remote | str:
    try:
        status = os.stat(path)
    except OSError as error:
        return file_error(error)
    return Remote(path, status.st_size, str(status.st_mtime_ns))


def _parts(looks: list[Remote | str], cache: Cache | None, fresh: bool, progress: Progress | None) -> list[Part | str]:
    """What each shard holds, or why that cannot be told."""
    found: list[Part | str] = []
    for part in remote.at_a_time(_INDEXING, lambda look: look if isinstance(look, str) else _part(look, cache, fresh), looks):
        found.append(part)
        if progress is not None:
            progress(len(found), len(looks))
    return found


def _part(shard: Remote, cache: Cache | None, fresh: bool) -> Part | str:
    """The index that was kept, else one made now: of a remote shard from a copy."""
    local = cache is None
    identity = (str(Path(shard.url).absolute()) if local else shard.url, shard.size, shard.mark)
    kept = shard_index.path_of(cache_folder(), identity)
    part = None if fresh else shard_index.load(kept)
    if part is not None:
        return part
    try:
        path = Path(shard.url) if cache is None else cache.fetch(shard)
        part = shard_index.read_part(path, os.path.basename(shard.url if local else shard.url.partition("?")[0]))
    except Unreadable as error:
        return str(error)
    if not local or _settled(shard):
        shard_index.save(kept, part)
    return part


def _settled(shard: Remote) -> bool:
    """False for a local file that changed in the last moments: another change could leave its time as it is."""
    return abs(time.time_ns() - int(shard.mark)) >= _TICK_NS


def _titles(places: list[str]) -> list[str]:
    """What a person calls the shards: their file names, or as much of their paths as tells them apart."""
    paths = [place.partition("?")[0] if remote.is_url(place) else place for place in places]
    names = [os.path.basename(p) for p in paths]
    if len(set(names)) == len(names):
        return names
    shared = len(os.path.commonpath(paths)) + 1
    return [p[shared:] for p in paths]


def _labels(part: Part, used: Ids) -> Labels:
    """The labels beside the images; of shards without any, the folders within them."""
    if part.texts:
        texts = (*part.texts, "")
        return from_values(texts[i] for i in part.label[used].tolist())
    return from_folders([name.partition("/")[2] for name in part.names.take(used)])


def _room(spec: str, shards: list[Remote], window: int, cache: Cache) -> None:
    """ValueError when the cache cannot hold a window and the one after it."""
    need = sum(sorted(s.size for s in shards)[-2 * window :])
    if need > cache.limit:
        raise ValueError(
            f"{spec} is read in windows of {window} shards, two of which take up to {need / 1e9:.3g} GB, and the cache in {cache.folder} "
            f"may hold {cache.limit / 1e9:.3g} GB; set {LIMIT}, or {FOLDER} to a larger disk, or end the name with #window=N, N smaller"
        )
