"""A folder of images of any layout -> a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from byol.data import index
from byol.data.encoded import Blobs, Files, image_header, look, source_of
from byol.data.header import Header
from byol.data.labels import from_folders
from byol.data.listing import list_files
from byol.data.source import Progress, Source


def open_folder(spec: str, root: Path, *, limit: int | None = None, fresh: bool = False, progress: Progress | None = None) -> Source:
    """All images below a folder, in bytewise order of their relative paths.

    Class labels come from the first folder level with two or more folders, when every image lies below it (labels.from_folders).
    A large folder that looks as it did the last time is not read again, unless `fresh`.
    """
    known = files_of(root, fresh=fresh, progress=progress)
    names = known.listing.names
    return source_of(
        Files(str(root), names),
        known.looked,
        spec=spec,
        kind="folder",
        labels=lambda used: from_folders(names if len(used) == len(names) else names.take(used)),
        limit=limit,
        skipped=known.listing.skipped,
        ignored=known.listing.ignored,
    )


def files_of(
    root: Path,
    *,
    fresh: bool,
    progress: Progress | None,
    header: Callable[[Blobs, int], Header | None] = image_header,
    of: str = "",
) -> index.Known:
    """The files of a folder and every header, as they were kept or read now; kept on disk when there are many.

    `of` is what the headers are of, other than images, in a few letters.
    """
    kept = None if fresh else index.load(root, of)
    if kept is not None:
        return kept
    listing = list_files(root, progress)
    files = Files(str(root), listing.names)
    marks = index.marks(files)  # before the headers: a file that changes meanwhile then differs the next time
    known = index.Known(listing, look(files, progress, header))
    index.save(root, known, marks, of)
    return known
