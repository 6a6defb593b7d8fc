"""Images in one array: in memory, .npy (mapped, not loaded) or .npz (x[, y]) -> a source."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt

from byol.data import sniff
from byol.data.compact import Names
from byol.data.decode import as_depth, channels_first, file_error, finite, npy_shape
from byol.data.encoded import limited
from byol.data.labels import Labels, from_values
from byol.data.patience import Patience, Waited, passing
from byol.data.source import Depth, Headers, Kind, Pixels, Source, SourceKind, Unreadable

_X: Final[tuple[str, ...]] = ("x", "X", "images", "image", "data", "x_train", "X_train", "arr_0")
_Y: Final[tuple[str, ...]] = ("y", "Y", "labels", "label", "targets", "target", "y_train", "Y_train", "arr_1")
_BESIDE: Final[tuple[str, ...]] = ("groups", "times")  # of every sample, where there are arrays of these names
_CLASSES: Final[tuple[str, ...]] = ("classes", "class_names", "label_names")


@dataclass
class ArrayReader:
    """Rows of an array of images; one that came from a file is opened again in each process instead of being copied there.

    Rows of an .npy are read, not mapped: a mapped file that shrinks, or whose disk is away, ends the process.
    """

    layout: str  # "NHW", "NHWC" or "NCHW"
    dtype: Depth
    path: str = ""  # "": the array exists in memory only
    key: str = ""  # the array's name within an .npz
    x: Pixels | None = field(default=None, repr=False)

    patience: Patience = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.patience = Patience(os.path.dirname(self.path) or ".")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "x": None if self.path else self.x}

    def read(self, index: int, shrink: int = 1) -> Pixels:
        try:
            row = self.patience.read(str(index), self.path, lambda: self._row(index)) if self.path else self._row(index)
        except OSError as error:
            raise Unreadable(file_error(error)) from error
        row = row[..., None] if self.layout == "NHW" else np.moveaxis(row, 0, 2) if self.layout == "NCHW" else row
        # A copy, so that nobody writes into the caller's array or a mapped file.
        return finite(np.ascontiguousarray(as_depth(row, self.dtype)))

    def waited(self) -> list[Waited]:
        """What had to be waited for since this was asked last."""
        return self.patience.waited()

    def _row(self, index: int) -> Pixels:
        if self.x is None:
            try:
                self.x = load_one(Path(self.path), self.key)
            except ValueError as error:  # the file was there at the start, and is another one now
                raise Unreadable(str(error)) from error
        if isinstance(self.x, np.memmap) and self.x.flags.c_contiguous:
            return _stored_row(self.x, self.path, index)
        row: Pixels = self.x[index]
        return row


def _stored_row(x: np.memmap[tuple[int, ...], np.dtype[np.generic]], path: str, index: int) -> Pixels:
    size = x.itemsize * math.prod(x.shape[1:])
    with open(path, "rb", buffering=0) as file:
        file.seek(x.offset + index * size)
        data = file.read(size)
    if len(data) < size:
        raise Unreadable("truncated: the file has become shorter")
    return np.frombuffer(data, x.dtype).reshape(x.shape[1:])


def open_array(
    x: Pixels, y: Sequence[object] | Pixels | None = None, *, spec: str = "array", kind: SourceKind = "array", limit: int | None = None
) -> Source:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) of any real type, and one class per image -> a source.

    Of the second and the last axis, channels are the shorter, the last when they are equal; `notes` says what was assumed.
    """
    return limited(_source(spec, kind, np.asarray(x), y, path="", key=""), limit)


def open_array_file(spec: str, path: Path, *, limit: int | None = None) -> Source:
    """An .npy of images, or an .npz that holds them as x (or images, data), with classes as y (or labels) if it has any."""
    keys = keys_of(path)
    key = keys[0] if len(keys) == 1 else next((k for k in _X if k in keys), None)
    if key is None:
        raise ValueError(f"{spec} has the arrays {', '.join(keys) or '(none)'} and none is called x; save it as x=images[, y=classes]")
    y, names = (next((load_one(path, k) for k in known if k in keys and k != key), None) for known in (_Y, _CLASSES))
    source = _source(spec, "array", load_one(path, key), y, path=str(path.absolute()), key=key, names=names)
    beside = {k: load_one(path, k) for k in _BESIDE if k in keys and k != key}
    return limited(_known(source, beside), limit)


def _known(source: Source, beside: dict[str, Pixels]) -> Source:
    """The source with groups and times of its samples; `notes` says so, and which array is no such thing."""
    for name, values in beside.items():
        fits = values.shape == (len(source),) and values.dtype.kind in "iu"
        said = f"{name} of every sample are known" if fits else f"{name} is not used: it is not ({len(source)},) whole numbers"
        source = replace(source, notes=(*source.notes, said))
        if fits:
            whole = values.astype(np.int64)
            source = replace(source, groups=whole) if name == "groups" else replace(source, times=whole)
    return source


def keys_of(path: Path) -> list[str]:
    """The names of the arrays of an .npz; [""] for an .npy."""
    with _damage_told(path), open(path, "rb") as file:
        if _is_npy(file):
            return [""]
        with np.load(file, allow_pickle=False) as loaded:
            return list(loaded.files)


def load_one(path: Path, key: str) -> Pixels:
    """One array of a file; that of an .npy is called "" and is mapped, not loaded."""
    with _damage_told(path), open(path, "rb") as file:
        if _is_npy(file):
            return np.lib.format.open_memmap(path, mode="r")
        with np.load(file, allow_pickle=False) as loaded:
            return unpacked(loaded, key)


def unpacked(loaded: np.lib.npyio.NpzFile, key: str) -> Pixels:
    """One array of an open .npz; ValueError if it claims more than half of this machine's memory, or more than there is of it."""
    archive = loaded.zip
    assert archive is not None
    info = archive.getinfo(key if key in archive.namelist() else f"{key}.npy")
    if info.file_size > memory_limit():
        raise ValueError(f"{key} unpacks to {info.file_size:,} bytes, over half of the memory; save it as .npy, which is read row by row")
    with archive.open(info) as member:
        npy_shape(cast(BinaryIO, member), info.file_size)  # numpy takes the memory that a header claims before it reads
    return np.asarray(loaded[key])


def memory_limit() -> int:
    """Bytes that one array may take: half of the machine's memory."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # no such question on this system
        return 8 << 30


def _is_npy(file: BinaryIO) -> bool:
    head = file.read(sniff.HEAD)
    file.seek(0)
    return sniff.format_of(head) == "NPY"


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # numpy and zipfile raise nearly every type of exception on damaged bytes
        if passing(error) or isinstance(error, FileNotFoundError | PermissionError):
            raise  # of the system, not of the bytes
        raise ValueError(_damage(path, error)) from error


def _damage(path: Path, error: Exception) -> str:
    if "allow_pickle" in str(error) or "Object arrays" in str(error) or "Python objects" in str(error):
        return f"{path} holds Python objects (pickle), which could run code; save plain arrays of numbers"
    return f"{path} is damaged or no NumPy file ({str(error)[:80]}); save it again"


def _source(
    spec: str,
    kind: SourceKind,
    x: Pixels,
    y: Sequence[object] | Pixels | None,
    *,
    path: str,
    key: str,
    names: npt.NDArray[np.generic] | None = None,
) -> Source:
    layout = _layout(spec, x)
    dtype = _depth(spec, x)
    n, height, width, channels = _sizes(x, layout)
    found = _labels(spec, y, n, names)
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    constant = np.ones(n, np.int32)
    size = np.full(n, x.dtype.itemsize * height * width * channels, np.int64)
    headers = Headers(constant * height, constant * width, size, constant * 0, (Kind("array", colour, channels, dtype),))
    axes = ", ".join(layout)
    return Source(
        spec=spec,
        names=Names.of(map(str, range(n))),
        reader=ArrayReader(layout, dtype, path, key, x),
        channels=channels,
        dtype=dtype,
        labels=found.values,
        classes=list(found.classes),
        skipped=[],
        kind=kind,
        headers=headers,
        notes=(f"array {' x '.join(map(str, x.shape))} of {x.dtype} read as ({axes})",),
    )


def _layout(spec: str, x: Pixels) -> str:
    if x.ndim not in (3, 4) or 0 in x.shape:
        shape = " x ".join(map(str, x.shape)) or "a single number"
        raise ValueError(f"{spec} holds an array of shape {shape}; images are (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if x.ndim == 3:
        return "NHW"
    return "NCHW" if channels_first(x.shape[1:]) else "NHWC"


def _sizes(x: Pixels, layout: str) -> tuple[int, int, int, int]:
    sizes = dict(zip(layout, x.shape, strict=True))
    return sizes["N"], sizes["H"], sizes["W"], sizes.get("C", 1)


def _depth(spec: str, x: Pixels) -> Depth:
    """The depth that keeps the values: integers go by their range, so int64 values of 0 to 255 are 8 bit."""
    if x.dtype in (np.uint8, np.bool_):
        return "uint8"
    if x.dtype == np.uint16:
        return "uint16"
    if x.dtype.kind in "iu":
        low, high = int(x.min()), int(x.max())
        return "float32" if low < 0 or high > 65535 else "uint8" if high <= 255 else "uint16"
    if x.dtype.kind == "f":
        return "float32"
    raise ValueError(f"{spec} holds values of type {x.dtype}; images are arrays of integers or floats")


def _labels(spec: str, y: Sequence[object] | Pixels | None, n: int, names: npt.NDArray[np.generic] | None) -> Labels:
    if y is None:
        return Labels()
    values = np.asarray(y)
    if values.shape == (n, 1):
        values = values[:, 0]
    if values.shape != (n,):
        raise ValueError(f"{spec} has {n:,} images, but its classes have the shape {values.shape}; give one class per image")
    if values.dtype.kind == "f" and not all(float(v).is_integer() for v in values[np.isfinite(values)]):
        raise ValueError(f"{spec} has fractions as classes (first {values[0]}); give whole numbers or names")
    if names is not None and values.dtype.kind in "iu" and names.ndim == 1 and values.min() >= -1 and values.max() < len(names):
        return Labels(values.astype(np.int64), tuple(str(v) for v in names.tolist()))
    return from_values(values.tolist())
