"""Which files lie below a folder, in bytewise order of their relative paths, and when each folder last changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from byol.data import sniff
from byol.data.compact import NameBuilder, Names, bytewise
from byol.data.decode import file_error
from byol.data.source import Progress, Skipped

_SYSTEM: Final = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
_TICK_NS: Final = 2_000_000_000  # the coarsest clock of a file system (FAT): a later change may leave the same time behind
_TOLD: Final = 5_000  # entries between two calls of progress


def hidden(name: str) -> bool:
    """True for what a file manager or an editor left behind: .DS_Store, __MACOSX/..., Thumbs.db."""
    return any(_hidden(part) for part in PurePosixPath(name).parts)


def _hidden(part: str) -> bool:
    return part.startswith(".") or part.lower() in _SYSTEM


@dataclass(frozen=True, eq=False)
class Listing:
    """The regular files below a folder, and what was passed over."""

    names: Names  # relative, with "/", in bytewise order
    skipped: list[Skipped]  # in bytewise order
    ignored: int
    folders: dict[str, int]  # every folder that was read, relative -> when it last changed, ns
    lasting: bool  # False: the times could not show a change, so nothing may be concluded from them later


@dataclass
class _Found:
    progress: Progress
    entries: int = 0
    names: NameBuilder = field(default_factory=NameBuilder)
    skipped: list[Skipped] = field(default_factory=list)
    ignored: int = 0
    folders: dict[str, int] = field(default_factory=dict)
    lasting: bool = True
    seen: set[tuple[int, int]] = field(default_factory=set)  # (device, inode) of folders
    links: list[str] = field(default_factory=list)  # to folders, yet to be read


def list_files(root: Path, progress: Progress | None = None) -> Listing:
    """Every regular file below root; first the real folders, then those that are only reached by links.

    Folders that are links are followed, but each folder is read once and under its own name, so loops of links end.
    progress(entries so far, 0) is called on the way.
    """
    found = _Found(progress or (lambda done, total: None))
    _walk(root, "", found)
    linked = bool(found.links)
    while found.links:
        links, found.links = sorted(found.links, key=bytewise), []
        for relative in links:
            _walk(root, relative, found)
    names = found.names.names()
    if linked:  # read out of order
        raw = list(names.raw())
        names = names.take(np.array(sorted(range(len(raw)), key=raw.__getitem__), np.int64))
    return Listing(names, sorted(found.skipped, key=lambda s: bytewise(s.name)), found.ignored, found.folders, found.lasting)


def _walk(root: Path, top: str, found: _Found) -> None:
    """Reads a folder and the real ones below it. Each folder's turn comes where its name belongs, so the paths come out sorted."""
    stack = [_runs(root, bytewise(top), found)]
    while stack:
        for run in stack[-1]:
            if run[0].endswith(b"/"):
                stack.append(_runs(root, run[0][:-1], found))
                break
            found.names.add(run)
        else:
            stack.pop()


def _runs(root: Path, folder: bytes, found: _Found) -> Iterator[list[bytes]]:
    """The paths of the files and real folders of one folder, sorted: runs of files, and each folder alone, with "/" behind it."""
    relative = folder.decode("utf-8", "surrogateescape")
    path = os.path.join(root, relative)
    prefix = folder + b"/" if folder else b""
    try:
        now, status = time.time_ns(), os.stat(path)
        if (status.st_dev, status.st_ino) in found.seen:
            return
        with os.scandir(path) as listed:
            entries = [prefix + name for entry in listed if (name := _entry(entry, relative, found))]
    except OSError as error:
        found.skipped.append(Skipped(relative + "/", file_error(error)))
        found.lasting = False  # a change of permissions leaves the time as it is
        return
    found.seen.add((status.st_dev, status.st_ino))
    found.folders[relative] = status.st_mtime_ns
    found.lasting &= abs(now - status.st_mtime_ns) >= _TICK_NS
    # A folder's "/" counts in the order of the paths below it: a-/1 comes before a/1.
    entries.sort()
    at = 0
    for place in [i for i, name in enumerate(entries) if name.endswith(b"/")]:
        yield from filter(None, (entries[at:place], entries[place : place + 1]))
        at = place + 1
    yield from filter(None, (entries[at:],))


def _entry(entry: os.DirEntry[str], relative: str, found: _Found) -> bytes:
    """The name of a file, or of a folder to go into, then with "/" behind it; empty for what is noted elsewhere."""
    name = entry.name
    found.entries += 1
    if found.entries % _TOLD == 0:
        found.progress(found.entries, 0)
    if _hidden(name):
        found.ignored += 1
    elif _is(entry.is_dir):
        if not entry.is_symlink():
            return bytewise(name) + b"/"
        found.links.append(f"{relative}/{name}" if relative else name)
    # Opening a pipe or a device would wait for ever, so only regular files are opened.
    elif _is(entry.is_file):
        return bytewise(name)
    elif entry.is_symlink() and sniff.promised(name):
        why = "a link to a pipe or a device" if _is(lambda: os.path.exists(entry.path)) else "a link to nothing"
        found.skipped.append(Skipped(f"{relative}/{name}" if relative else name, why))
    else:
        found.ignored += 1
    return b""


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link to itself
        return False
