"""A text, CSV or Parquet list of path[, label] -> a source; paths are relative to the folder of the list."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from byol.data.compact import Names
from byol.data.dated import Said, Unit, by_list
from byol.data.encoded import Blobs, Files, Looked, image_header, limited, look, source_of
from byol.data.header import Header
from byol.data.labels import Labels, from_values
from byol.data.source import Ids, Progress, Source, SourceKind

if TYPE_CHECKING:
    import pyarrow

_PATHS: Final = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "name")
_LABELS: Final = ("label", "class", "target", "y", "category", "species", "class_name", "label_name")
_SUBJECTS: Final = ("subject", "subject_id", "participant", "participant_id", "patient", "patient_id")
_WHEN: Final[tuple[Unit, ...]] = ("date", "age", "time")
_VIEWS: Final = ("view",)
_SEPARATORS: Final = "\t,;"
_LIMIT: Final = 2 << 30  # bytes of a list
_ROWS: Final = 100_000_000
_LONGEST: Final = 1 << 16  # bytes of one cell; no path is longer


class Build(Protocol):
    """Files and what a look at them found -> their source."""

    def __call__(self, blobs: Files, looked: Looked, *, spec: str, kind: SourceKind, labels: Callable[[Ids], Labels]) -> Source: ...


@dataclass(frozen=True)
class _Table:
    paths: list[str]
    labels: list[object] | None
    said: Said | None = None  # whose each is, and when it was made


def open_list(
    spec: str,
    path: Path,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
    header: Callable[[Blobs, int], Header | None] = image_header,
    build: Build = source_of,
) -> Source:
    """The listed images in the order of the list, or what else `header` knows; files that are missing are skipped, not fatal.

    A first row with a known name (path, file, image, ...; label, class, target, ...) is a header. Without one, the first column
    that names files is the path, and the next one is the label. Empty labels are unknown. With the columns subject and date, age
    (years) or time (days), samples are dated (`byol.data.dated`); a column view holds what stays with itself within a subject.
    """
    table = _read(spec, path)
    blobs, found = _files(spec, path, table)
    rows: list[Ids] = []

    def labels(used: Ids) -> Labels:
        rows.append(used)
        return taken(found, used)

    source = build(blobs, look(blobs, progress, header), spec=spec, kind="list", labels=labels)
    return limited(source if table.said is None else by_list(source, _of_rows(table.said, rows[0])), limit)


def listed(spec: str, path: Path) -> tuple[Files, Labels]:
    """The files of a list, in its order, and a label for each."""
    return _files(spec, path, _read(spec, path))


def _read(spec: str, path: Path) -> _Table:
    with open(path, "rb") as file:
        parquet = file.read(4) == b"PAR1"
    table = _parquet(spec, path) if parquet else _text(spec, path)
    if not table.paths:
        raise ValueError(f"{spec} lists no file; write one path per line, relative to {path.parent}/")
    return table


def _files(spec: str, path: Path, table: _Table) -> tuple[Files, Labels]:
    found = from_values(table.labels) if table.labels is not None else Labels()
    try:
        return Files(str(path.parent), Names.of(p.removeprefix("./") for p in table.paths)), found
    except UnicodeEncodeError as error:
        raise ValueError(f"{spec} names a file that no file system can hold ({error.reason}); write the list again") from error


def _of_rows(said: Said, rows: Ids) -> Said:
    subjects, when, views = ([column[i] for i in rows] if column else [] for column in (said.subjects, said.when, said.views))
    return Said(subjects, when, said.unit, views or None)


def taken(found: Labels, rows: Ids) -> Labels:
    """The labels of these rows."""
    return Labels() if found.values is None else Labels(found.values[rows], found.classes)


def _text(spec: str, path: Path) -> _Table:
    if path.stat().st_size > _LIMIT:
        raise ValueError(f"{spec} has {path.stat().st_size:,} bytes, and a list may have {_LIMIT:,}; give the folder itself, or split it")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{spec} is not UTF-8 text (byte {error.start:,}); save the list as UTF-8") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix.lower() in (".csv", ".tsv"):
        return _from_rows(spec, path.parent, _csv_rows(spec, text))
    return _from_rows(spec, path.parent, [_split(line, path.parent) for line in lines if not _comment(line, path.parent)])


def _csv_rows(spec: str, text: str) -> list[list[str]]:
    first = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator if separator in first else ",")
    try:
        return [row for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"{spec} cannot be read as CSV (line {rows.line_num:,}: {error}); write it again") from error


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
    at = _path_column(spec, root, body, width, names if header else [])
    labelled = _column(names, _LABELS) if header else (at + 1 if at + 1 < width else None)
    if labelled is not None and labelled >= width:
        labelled = None
    used = [row for row in body if _cell(row, at)]
    labels: list[object] | None = None if labelled is None else [_cell(row, labelled) for row in used]
    return _Table([_cell(row, at) for row in used], labels, _said(names if header else [], lambda c: [_cell(row, c) for row in used]))


def _said(names: Sequence[str], column: Callable[[int], list[object]]) -> Said | None:
    """What columns of these names say of subjects and times; None where one of both is missing."""
    subject, view = _column(names, _SUBJECTS), _column(names, _VIEWS)
    unit = next((unit for unit in _WHEN if unit in names), None)
    if subject is None or unit is None:
        return None
    return Said(column(subject), column(names.index(unit)), unit, None if view is None else column(view))


def _cell(row: Sequence[str], column: int) -> str:
    return row[column].strip() if column < len(row) else ""


def _column(names: Sequence[str], known: Sequence[str]) -> int | None:
    return next((names.index(k) for k in known if k in names), None)


def _path_column(spec: str, root: Path, body: Sequence[Sequence[str]], width: int, names: Sequence[str]) -> int:
    """The column called like a path, else the first one whose cells name files, else the first."""
    named = _column(names, _PATHS)
    if named is not None and named < width:
        return named
    for c in range(min(width, 1000)):
        if any(_is_file(root, cell) for row in body[:100] if (cell := _cell(row, c))):
            return c
    if names and width:
        raise ValueError(f"{spec} has the columns {', '.join(names)} and none of them names files; call the one with paths 'path'")
    return 0


def _parquet(spec: str, path: Path) -> _Table:
    import pyarrow
    import pyarrow.parquet

    try:
        # Nothing of the file is read for its schema, and then only the columns that are wanted.
        with pyarrow.parquet.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
        if rows > _ROWS:
            raise ValueError(f"{spec} claims {rows:,} rows, and a list may have {_ROWS:,}; split it")
        at, labelled = _parquet_columns(spec, schema)
        cells = _column_of(path, schema.names[at])
        values = None if labelled is None else _column_of(path, schema.names[labelled])
        if values is not None and len(values) != len(cells):
            raise pyarrow.ArrowInvalid(f"{len(cells):,} paths and {len(values):,} labels")
        used = [i for i, cell in enumerate(cells) if cell]
        said = _said([n.lower() for n in schema.names], lambda c: [found[i] for found in [_column_of(path, schema.names[c])] for i in used])
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{spec} is a damaged Parquet file ({text[:80]}); write it again") from error
    return _Table([str(cells[i]) for i in used], None if values is None else [values[i] for i in used], said)


def _parquet_columns(spec: str, schema: pyarrow.Schema) -> tuple[int, int | None]:
    """Which columns hold the paths and the labels."""
    import pyarrow

    names = [str(n).lower() for n in schema.names]
    text = [i for i, f in enumerate(schema) if pyarrow.types.is_string(f.type) or pyarrow.types.is_large_string(f.type)]
    at = _column(names, _PATHS)
    at = at if at in text else next(iter(text), None)
    if at is None:
        raise ValueError(f"{spec} has the columns {', '.join(names)} and none of them holds paths as text; add a column 'path'")
    labelled = _column(names, _LABELS)
    return at, 1 - at if labelled is None and len(names) == 2 else labelled


def _column_of(path: Path, name: str) -> list[object]:
    """The values of one column; a text that is repeated is held once while it is read."""
    import pyarrow.parquet

    found: list[object] = []
    known: dict[object, object] = {}
    with pyarrow.parquet.ParquetFile(path, read_dictionary=[name]) as file:
        for batch in file.iter_batches(columns=[name], batch_size=65_536):
            batch.validate(full=True)  # damaged bytes give places in the dictionary that it does not have
            column = batch.column(0)
            if pyarrow.types.is_dictionary(column.type):
                texts = column.dictionary.to_pylist()
                if any(isinstance(t, str | bytes) and len(t) > _LONGEST for t in texts):
                    raise pyarrow.ArrowInvalid(f"a text of more than {_LONGEST:,} characters")
                texts = [known.setdefault(t, t) for t in texts]
                found += [None if i is None else texts[i] for i in column.indices.to_pylist()]
            else:
                found += column.to_pylist()
    return found
