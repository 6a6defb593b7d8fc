"""Features in files that other programs read: .parquet, .npz, .npy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from byol import dist
from byol.files import atomic, check_ending

if TYPE_CHECKING:
    from pyarrow import RecordBatch
    from pyarrow.parquet import ParquetWriter

EMBEDDING_FILES = (".parquet", ".npz", ".npy")
GROUP = 16 << 20  # bytes of features that wait to be written as one group of rows

Features: TypeAlias = NDArray[np.float32]
Array: TypeAlias = NDArray[np.generic]
Labels: TypeAlias = Sequence[str] | Sequence[int] | Array


def check_embedding_path(path: Path) -> None:
    """ValueError if `write_embeddings` does not know the ending: to be asked before the work, not after."""
    check_ending(path, EMBEDDING_FILES)


def check_timed_path(path: Path) -> None:
    """ValueError if `timed_rows` cannot write it: to be asked before the work, not after."""
    check_embedding_path(path)
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"{path}: with a hop every sound has many rows, which are written as they come; give FILE.parquet")


def part_of(path: Path) -> Path:
    """The file that this process writes: `path`, or of several processes a part in a folder of that name; ValueError where that cannot be.

    Parts of an earlier call are taken away first.
    """
    check_embedding_path(path)
    if dist.size() == 1:
        return path
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"{path}: several processes write one part each, which only .parquet can have; give FILE.parquet")

    def empty() -> None:
        if path.is_file():
            raise ValueError(f"{path} is a file, and several processes write a folder of parts; remove it, or give another name")
        for old in path.glob("part-*.parquet"):
            old.unlink()
        path.mkdir(parents=True, exist_ok=True)

    dist.from_first(empty)
    return path / f"part-{dist.rank():05}-of-{dist.size():05}.parquet"


def write_embeddings(path: Path, names: Sequence[str], features: Features, labels: Labels | None = None) -> None:
    """Write (N, D) features with the names of their images, whole or not at all; the ending of `path` says how.

    .parquet: columns name, label (if given) and embedding (fixed-size list of float32). .npz: names, features, labels.
    .npy: the features alone, with names and labels in PATH.json beside it. ValueError for unequal lengths.
    """
    check_embedding_path(path)
    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or len(names) != len(features) or (labels is not None and len(labels) != len(features)):
        counts = f"{len(names)} names and {'no' if labels is None else len(labels)} labels"
        raise ValueError(f"features of shape {features.shape} do not go with {counts}; give (N, D), N names and N labels or none")
    plain = None if labels is None else np.asarray(labels)
    if plain is not None and plain.dtype.kind == "O":
        raise ValueError("the labels are neither all numbers nor all text; give one or the other")
    write = {".parquet": _write_parquet, ".npz": _write_npz, ".npy": _write_npy}[path.suffix.lower()]
    with atomic(path) as temporary:
        write(temporary, path, list(names), features, plain)


class TimedRows:
    """The rows of a .parquet, which it writes in groups of GROUP bytes as they come."""

    def __init__(self, writer: ParquetWriter) -> None:
        self._writer = writer
        self._waiting: list[RecordBatch] = []
        self._bytes = 0

    def add(self, name: str, label: str | None, times: NDArray[np.int64], features: Features) -> None:
        """(t,) ms and (t, D): what one sound is at these times; `label` where the file has labels."""
        import pyarrow as pa

        said = [name] if label is None else [name, label]
        columns = [pa.array([_text(value)] * len(times), pa.string()) for value in said]
        columns += [pa.array(times), pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])]
        self._waiting.append(pa.record_batch(columns, schema=self._writer.schema))
        self._bytes += features.nbytes
        if self._bytes >= GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what waits, as one group of rows."""
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting))
        self._waiting, self._bytes = [], 0


@contextmanager
def timed_rows(path: Path, dim: int, *, labelled: bool) -> Iterator[TimedRows]:
    """A .parquet of features over time, written whole or not at all: columns name, label (if `labelled`), time_ms and embedding."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("name", pa.string()), ("label", pa.string()), ("time_ms", pa.int64()), ("embedding", pa.list_(pa.float32(), dim))]
    schema = pa.schema([field for field in fields if labelled or field[0] != "label"])
    with atomic(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        rows = TimedRows(writer)
        yield rows
        rows.flush()


def _write_parquet(temporary: Path, path: Path, names: list[str], features: Features, labels: Array | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"name": pa.array(map(_text, names), pa.string())}
    if labels is not None:
        columns["label"] = pa.array([_text(v) if isinstance(v, str) else v for v in labels.tolist()])
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), features.shape[1])
    pq.write_table(pa.table(columns), temporary)


def _text(name: str) -> str:
    """A name as UTF-8 can hold it: bytes that are no text appear as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _write_npz(temporary: Path, path: Path, names: list[str], features: Features, labels: Array | None) -> None:
    known = np.array(names, dtype=np.str_)
    if labels is None:
        np.savez(temporary, names=known, features=features)
    else:
        np.savez(temporary, names=known, features=features, labels=labels)


def _write_npy(temporary: Path, path: Path, names: list[str], features: Features, labels: Array | None) -> None:
    np.save(temporary, features, allow_pickle=False)
    with atomic(path.with_name(path.name + ".json")) as beside:
        beside.write_text(json.dumps({"names": names, "labels": None if labels is None else labels.tolist()}) + "\n", encoding="utf-8")
