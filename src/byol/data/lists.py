"""A text, CSV or Parquet list of path[, label] -> a source; paths are relative to the folder of the list."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from byol.data.compact import Names
from byol.data.encoded import Files, look, source_of
from byol.data.labels import Labels, from_values
from byol.data.source import Progress, Source

_PATHS: Final = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "name")
_LABELS: Final = ("label", "class", "target", "y", "category", "species", "class_name", "label_name")
_SEPARATORS: Final = "\t,;"


@dataclass(frozen=True)
class _Table:
    paths: list[str]
    labels: list[object] | None


def open_list(spec: str, path: Path, *, limit: int | None = None, progress: Progress | None = None) -> Source:
    """The listed images in the order of the list; files that are missing are skipped, not fatal.

    A first row with a known name (path, file, image, ...; label, class, target, ...) is a header. Without one, the first column
    that names files is the path, and the next one is the label. Empty labels are unknown.
    """
    with open(path, "rb") as file:
        parquet = file.read(4) == b"PAR1"
    table = _parquet(spec, path) if parquet else _text(spec, path)
    if not table.paths:
        raise ValueError(f"{spec} lists no file; write one path per line, relative to {path.parent}/")
    found = from_values(table.labels) if table.labels is not None else Labels()
    blobs = Files(str(path.parent), Names.of(p.removeprefix("./") for p in table.paths))
    return source_of(
        blobs,
        look(blobs, progress),
        spec=spec,
        kind="list",
        labels=lambda used: Labels() if found.values is None else Labels(found.values[used], found.classes),
        limit=limit,
    )


def _text(spec: str, path: Path) -> _Table:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{spec} is not UTF-8 text (byte {error.start:,}); save the list as UTF-8") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix.lower() in (".csv", ".tsv"):
        return _from_rows(spec, path.parent, _csv_rows(text))
    return _from_rows(spec, path.parent, [_split(line, path.parent) for line in lines if not _comment(line, path.parent)])


def _csv_rows(text: str) -> list[list[str]]:
    first = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator if separator in first else ",")
    return [row for row in rows if any(cell.strip() for cell in row)]


def _comment(line: str, root: Path) -> bool:
    return line.startswith("#") and not _is_file(root, line)


def _split(line: str, root: Path) -> list[str]:
    """A line of a .txt list -> [path] or [path, label]; spaces and commas may belong to the path when a file is called so."""
    if "\t" in line:
        return line.split("\t")
    if _is_file(root, line.strip()):
        return [line.strip()]
    for separator in (",", ";", None):
        parts = line.strip().rsplit(separator, 1)
        if len(parts) == 2 and _is_file(root, parts[0].strip()):
            return parts
    return [line.strip()]


def _is_file(root: Path, name: str) -> bool:
    try:
        return os.path.isfile(os.path.join(root, name))
    except ValueError:  # a zero byte in the name
        return False


def _from_rows(spec: str, root: Path, rows: Sequence[Sequence[str]]) -> _Table:
    if not rows:
        return _Table([], None)
    names = [cell.strip().lower() for cell in rows[0]]
    header = any(n in _PATHS + _LABELS for n in names) and not any(_is_file(root, c.strip()) for c in rows[0])
    body = rows[1:] if header else rows
    width = max((len(row) for row in body), default=0)
    columns = [[row[c].strip() if c < len(row) else "" for row in body] for c in range(width)]
    at = _path_column(spec, root, columns, names if header else [])
    labelled = _column(names, _LABELS) if header else (at + 1 if at + 1 < width else None)
    if labelled is not None and labelled >= width:
        labelled = None
    rows_with_path = [i for i, cell in enumerate(columns[at]) if cell] if columns else []
    labels: list[object] | None = None if labelled is None else [columns[labelled][i] for i in rows_with_path]
    return _Table([columns[at][i] for i in rows_with_path], labels)


def _column(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(k) for k in known if k in names), None)


def _path_column(spec: str, root: Path, columns: Sequence[Sequence[str]], names: Sequence[str]) -> int:
    """The column called like a path, else the first one whose cells name files, else the first."""
    named = _column(names, _PATHS)
    if named is not None and named < len(columns):
        return named
    for c, cells in enumerate(columns):
        if any(_is_file(root, cell) for cell in cells[:100] if cell):
            return c
    if names and columns:
        raise ValueError(f"{spec} has the columns {', '.join(names)} and none of them names files; call the one with paths 'path'")
    return 0


def _parquet(spec: str, path: Path) -> _Table:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{spec} is a damaged Parquet file ({str(error).splitlines()[0][:80]}); write it again") from error
    names = [str(n).lower() for n in table.column_names]
    text = [i for i, f in enumerate(table.schema) if pyarrow.types.is_string(f.type) or pyarrow.types.is_large_string(f.type)]
    at = _column(names, _PATHS)
    at = at if at in text else next(iter(text), None)
    if at is None:
        raise ValueError(f"{spec} has the columns {', '.join(names)} and none of them holds paths as text; add a column 'path'")
    labelled = _column(names, _LABELS)
    if labelled is None and len(names) == 2:
        labelled = 1 - at
    cells = table.column(at).to_pylist()
    used = [i for i, cell in enumerate(cells) if cell]
    values = None if labelled is None else table.column(labelled).to_pylist()
    return _Table([str(cells[i]) for i in used], None if values is None else [values[i] for i in used])
