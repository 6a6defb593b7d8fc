"""A folder of images of any layout -> a source."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from byol.data import sniff
from byol.data.decode import file_error
from byol.data.encoded import Files, source_of
from byol.data.labels import from_folders
from byol.data.source import Progress, Skipped, Source, bytewise

_SYSTEM: Final = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


def hidden(name: str) -> bool:
    """True for what a file manager or an editor left behind: .DS_Store, __MACOSX/..., Thumbs.db."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in PurePosixPath(name).parts)


@dataclass
class _Listing:
    names: list[str] = field(default_factory=list)  # regular files, relative, with "/"
    skipped: list[Skipped] = field(default_factory=list)
    ignored: int = 0


def open_folder(spec: str, root: Path, *, limit: int | None = None, progress: Progress | None = None) -> Source:
    """All images below a folder, in bytewise order of their relative paths.

    Class labels come from the first folder level with two or more folders, when every image lies below it (labels.from_folders).
    Folders that are links are followed, but each folder is read once and under its own name, so loops of links end.
    """
    listing = _list(root)
    listing.names.sort(key=bytewise)
    return source_of(
        Files(str(root), listing.names),
        spec=spec,
        kind="folder",
        labels=lambda used: from_folders([listing.names[i] for i in used]),
        limit=limit,
        skipped=sorted(listing.skipped, key=lambda s: bytewise(s.name)),
        ignored=listing.ignored,
        progress=progress,
    )


def _list(root: Path) -> _Listing:
    """Every regular file below root; first the real folders, then those that are only reached by links."""
    listing, seen, links = _Listing(), set[tuple[int, int]](), [""]
    while links:
        later: list[str] = []
        for relative in sorted(links, key=bytewise):
            _walk(root, relative, listing, seen, later.append)
        links = later
    return listing


def _walk(root: Path, top: str, listing: _Listing, seen: set[tuple[int, int]], link: Callable[[str], None]) -> None:
    stack = [top]
    while stack:
        relative = stack.pop()
        path = os.path.join(root, relative)
        try:
            status = os.stat(path)
            entries = sorted(os.scandir(path), key=lambda e: bytewise(e.name))
        except OSError as error:
            listing.skipped.append(Skipped(relative + "/", file_error(error)))
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            name = f"{relative}/{entry.name}" if relative else entry.name
            if hidden(entry.name):
                listing.ignored += 1
            elif not _is(entry.is_dir):
                _file(entry, name, listing)
            elif entry.is_symlink():
                link(name)
            else:
                stack.append(name)


def _file(entry: os.DirEntry[str], name: str, listing: _Listing) -> None:
    # Opening a pipe or a device would wait for ever, so only regular files are opened.
    if _is(entry.is_file):
        listing.names.append(name)
    elif entry.is_symlink() and sniff.promised(name):
        listing.skipped.append(Skipped(name, "a link to nothing"))
    else:
        listing.ignored += 1


def _is(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except OSError:  # a link to itself
        return False
