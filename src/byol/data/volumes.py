"""Volumes, such as scans of a body: NIfTI files, or .npy of three axes -> cubes that are images whose channels are their slices.

A cube holds all of the field of view, centred; its voxels are cubes too, so that shapes stay as they are whatever the spacing of a
scan, and what the scan does not cover is 0. Slices go from below upwards; a row of one goes from left to right, the rows from front to
back (of an .npy, whose axes are taken as those of NIfTI, with voxels that are cubes). Values are those from the 1st to the 99th
percentile of each volume, as 0 to 1.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from byol.data import sniff
from byol.data.compact import narrow
from byol.data.dated import by_names, named_by_dates
from byol.data.decode import file_error, npy_shape, one_at_a_time
from byol.data.encoded import Blobs, Files, Looked, compact, limited, nothing
from byol.data.folder import files_of
from byol.data.header import Header
from byol.data.labels import Labels, from_folders
from byol.data.lists import open_list
from byol.data.patience import Patience, Waited
from byol.data.sounds import first_names_of
from byol.data.source import Ids, Kind, Pixels, Progress, Rows, Skipped, Source, SourceKind, Unreadable

Floats = npt.NDArray[np.float32]
NiftiHeader: TypeAlias = Any  # nibabel's functions have no types

SIDE: Final = 64  # voxels, of a cube
GIVE: Final = "Give a folder with .nii or .nii.gz files, or a list of such."
_MOST: Final = 1 << 28  # voxels that a volume may have: as float64, in which scaled ones are read, 2 GB
_OFFSET: Final = 1 << 20  # bytes before the voxels at most
_LEAST: Final = 16  # voxels along each axis of an .npy that is taken for a volume
_FIRST: Final = 200  # names of .npy files that are looked at
_NIFTI: Final = (".nii", ".nii.gz")


def is_volumes(path: Path) -> bool:
    """True where the first names are rather .nii or .nii.gz than of images and sounds, and for a folder SUBJECT/DATE of cubes as .npy."""
    try:
        names = list(first_names_of(path))
    except (OSError, ValueError):
        return False
    if sum(map(_is_nifti, names)) > sum(bool(sniff.promised(name) or sniff.sound_promised(name)) for name in names):
        return True
    return path.is_dir() and bool(names) and all(name.endswith(".npy") for name in names) and _cubes(path)


def open_volumes(spec: str, path: Path, *, limit: int | None = None, fresh: bool = False, progress: Progress | None = None) -> Source:
    """The volumes of a folder or list -> their source: (SIDE, SIDE, SIDE) float32 each, dated as images are (`byol.data.dated`).

    ValueError with one sentence where there are none, or nibabel is missing. Headers are read, voxels are not.
    """
    if find_spec("nibabel") is None and any(map(_is_nifti, first_names_of(path))):
        raise ValueError(f"{spec} holds NIfTI volumes, which nibabel reads; run `pip install 'byol[nifti]'`")
    if not path.is_dir():
        return open_list(spec, path, limit=limit, progress=progress, header=volume_header, build=volumes_of)
    known = files_of(path, fresh=fresh, progress=progress, header=volume_header, of=f"-volume-{SIDE}")
    names = known.listing.names
    source = volumes_of(
        Files(str(path), names), known.looked, spec=spec, kind="folder",
        labels=lambda used: from_folders(names.take(used)), skipped=known.listing.skipped, ignored=known.listing.ignored,
    )  # fmt: skip
    return limited(by_names(source), limit)


def volumes_of(
    blobs: Files,
    looked: Looked,
    *,
    spec: str,
    kind: SourceKind,
    labels: Callable[[Ids], Labels],
    skipped: Sequence[Skipped] = (),
    ignored: int = 0,
) -> Source:
    """Files and what a look at them found -> the source of the volumes among them; `labels` gets the indices that are used."""
    used = np.flatnonzero(looked.headers.kind >= 0)
    if not len(used):
        raise ValueError(nothing(spec, blobs, looked.bad, skipped, ignored, what="a volume", give=GIVE))
    headers, found = looked.headers.take(used), labels(used)
    several = sum(int((headers.kind == k).sum()) for k, one in enumerate(headers.kinds) if one.colour.endswith(SEVERAL))
    notes = (
        f"each volume as a cube of {SIDE} voxels a side, its values from the 1st to the 99th percentile as 0 to 1",
        f"the first volume of each of {several:,} files that hold several" if several else "",
        found.note,
    )
    return Source(
        spec=spec,
        names=blobs.names.take(used),
        reader=Rows(VolumeReader(blobs), narrow(used)),
        channels=SIDE,
        dtype="float32",
        labels=found.values,
        classes=list(found.classes),
        skipped=[*skipped, *(Skipped(blobs.names[i], looked.bad[i]) for i in sorted(looked.bad))],
        kind=kind,
        modality="volume",
        headers=compact(headers, [True] * len(headers.kinds)),
        ignored=ignored + len(blobs.names) - len(used) - len(looked.bad),
        notes=tuple(n for n in notes if n),
    )


SEVERAL: Final = ", the first of several"


@dataclass(frozen=True)
class VolumeReader:
    """Reads files as cubes; waits for what may come back (see `patience`)."""

    blobs: Files
    patience: Patience = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", Patience(self.blobs.folder))

    def read(self, index: int, shrink: int = 1) -> Pixels:
        name, place = self.blobs.names[index], self.blobs.place(index)
        try:
            return self.patience.read(name, place, lambda: _cube(self.blobs, index))
        except OSError as error:
            raise Unreadable(file_error(error)) from error

    def waited(self) -> list[Waited]:
        """What had to be waited for since this was asked last."""
        return self.patience.waited()


def volume_header(blobs: Blobs, index: int) -> Header | None:
    """The header of a volume, None for what is none; raises OSError or Unreadable."""
    name = blobs.names[index]
    if not _is_nifti(name) and not name.lower().endswith(".npy"):
        return None
    file, size = blobs.open(index)
    with file:
        if name.lower().endswith(".npy"):
            shape, spacing, what, more = *_npy(file, size), "npy", False
        else:
            found = _nifti_header(file, name)
            shape, spacing, more = _shape(found, size if name.lower().endswith(".nii") else None)
            what = "nifti"
    colour = " x ".join(map(str, shape)) + " of " + " x ".join(f"{s:.3g}" for s in spacing) + (" mm" if what == "nifti" else "")
    return Header(Kind(what, colour + SEVERAL * more, SIDE, "float32"), SIDE, SIDE, size)


def cube(volume: npt.NDArray[np.floating], spacing: Sequence[float], side: int = SIDE) -> Floats:
    """(X, Y, Z) values to the right, the front and upwards, the distance of voxels along each -> (side, side, side): rows, columns, slices.

    Along each axis a triangle filter, which is as wide as the wider of both kinds of voxels; values of 0 to 1 (see `scaled`).
    """
    longest = max(n * s for n, s in zip(volume.shape, spacing, strict=True))
    out: npt.NDArray[np.floating] = volume
    inside = np.ones((), bool)
    for n, s in zip(volume.shape, spacing, strict=True):
        weights = _weights(n, s, side, longest / side)
        out = np.tensordot(out, weights.astype(np.float32), (0, 1))  # the axis that was first is the last now
        inside = inside[..., None] & (weights.sum(1) > 0)
    made = np.where(inside, scaled(out, inside), 0)
    # Rows go down a picture, from the front to the back.
    return np.ascontiguousarray(made.transpose(1, 0, 2)[::-1], np.float32)


def scaled(values: npt.NDArray[np.floating], inside: npt.NDArray[np.bool_]) -> Floats:
    """The values from the 1st to the 99th percentile of those inside as 0 to 1; from the least to the greatest where these are alike."""
    there = values[inside]
    low, high = np.percentile(there, [1, 99])
    if low == high:
        low, high = there.min(), there.max()
    if not low < high:
        raise Unreadable("all voxels are alike")
    found: Floats = ((values - low) / (high - low)).clip(0, 1).astype(np.float32)
    return found


def _weights(n: int, spacing: float, side: int, step: float) -> npt.NDArray[np.float64]:
    """(side, n): how much each of n voxels counts for each of `side` that lie `step` apart, both about the same centre; 0 outside."""
    new = (np.arange(side) - (side - 1) / 2)[:, None] * step
    old = (np.arange(n) - (n - 1) / 2)[None] * spacing
    found = np.maximum(0, 1 - np.abs(new - old) / max(spacing, step))
    found[np.abs(new[:, 0]) > n * spacing / 2 * (1 + 1e-9)] = 0
    total = found.sum(1, keepdims=True)
    shares: npt.NDArray[np.float64] = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
    return shares


def _cube(blobs: Files, index: int) -> Floats:
    """A file as a cube; raises OSError or Unreadable."""
    # The header again: the file may be another one by now, and how large it is is known before it is read.
    name, path = blobs.names[index], blobs.place(index)
    file, size = blobs.open(index)
    with file:
        header = _checked(file, size, name)
    try:
        volume, spacing = _load_npy(path) if header is None else _load_nifti(path, header)
    except (Unreadable, MemoryError):
        raise
    except EOFError:
        raise Unreadable("truncated: it ends before its last voxel") from None
    except OSError as error:
        if error.errno is not None:
            raise  # of the system, not of the bytes
        raise Unreadable(f"damaged ({_short(error)})") from error
    except Exception as error:  # nibabel and zlib raise many types of exception on damaged bytes
        raise Unreadable(f"damaged ({_short(error)})") from error
    return cube(volume, spacing)


def _load_npy(path: str) -> tuple[Floats, tuple[float, ...]]:
    with open(path, "rb") as file:
        return _whole(np.lib.format.read_array(file, allow_pickle=False)), (1.0, 1.0, 1.0)


def _load_nifti(path: str, header: NiftiHeader) -> tuple[Floats, tuple[float, ...]]:
    nibabel: Any = import_module("nibabel")
    image = (nibabel.Nifti2Image if header["sizeof_hdr"] == 540 else nibabel.Nifti1Image).from_filename(path)
    shape = header.get_data_shape()[:3]
    with one_at_a_time(4 * math.prod(shape)):
        first = image.dataobj[(slice(None),) * 3 + (0,) * (len(image.shape) - 3)]
        values = _whole(np.asarray(first).reshape(shape))
    affine = image.affine
    if affine is None or not np.isfinite(affine).all() or not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise Unreadable("its header says no orientation that there is")
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, affine))
    return np.asarray(turned.dataobj), tuple(float(s) for s in nibabel.affines.voxel_sizes(turned.affine))


def _whole(values: npt.NDArray[np.generic]) -> Floats:
    if values.dtype.kind not in "biuf":
        raise Unreadable(f"values of type {values.dtype} are no voxels")
    with np.errstate(over="ignore"):  # what becomes infinite is told below
        found = values.astype(np.float32)
    bad = found.size - int(np.isfinite(found).sum())
    if bad:
        raise Unreadable(f"{bad:,} of {found.size:,} voxels are NaN or infinite")
    return found


def _npy(file: BinaryIO, size: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    try:
        shape, dtype = npy_shape(file, size)
    except ValueError as error:
        raise Unreadable(f"damaged .npy ({_short(error)})") from error
    if len(shape) != 3 or 0 in shape or dtype.kind not in "biuf":
        raise Unreadable(f"an array of {dtype} of shape {shape}, and a volume has three axes of numbers")
    _affordable(shape)
    return shape, (1.0, 1.0, 1.0)


def _nifti_header(file: BinaryIO, name: str) -> NiftiHeader:
    """What the first bytes say; nothing else is read."""
    nibabel: Any = import_module("nibabel")
    try:
        head = gzip.GzipFile(fileobj=file).read(540) if name.lower().endswith(".gz") else file.read(540)
    except EOFError:
        raise Unreadable("truncated: it ends within its header") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise Unreadable(f"damaged ({_short(error)})") from error
    size = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    for kind, length in ((nibabel.Nifti1Header, 348), (nibabel.Nifti2Header, 540)):
        if length in size and len(head) >= length:
            try:
                return kind.from_fileobj(io.BytesIO(head[:length]), check=False)
            except Exception as error:  # nibabel raises many types of exception on damaged bytes
                raise Unreadable(f"damaged ({_short(error)})") from error
    raise Unreadable("0 bytes" if not head else "no NIfTI file" if len(head) >= 540 else f"truncated: ends after {len(head):,} bytes")


def _checked(file: BinaryIO, size: int, name: str) -> NiftiHeader | None:
    """The header of a file that can be read, None of an .npy; raises Unreadable."""
    if name.lower().endswith(".npy"):
        _npy(file, size)
        return None
    header = _nifti_header(file, name)
    _shape(header, None if name.lower().endswith(".gz") else size)
    return header


def _shape(header: NiftiHeader, size: int | None) -> tuple[tuple[int, ...], tuple[float, ...], bool]:
    """A header -> three axes, their spacing, and whether there are more volumes; raises Unreadable for what is not to be read."""
    try:
        shape, dtype, zooms = header.get_data_shape(), header.get_data_dtype(), header.get_zooms()
        offset = float(header["vox_offset"])
    except Exception as error:  # as above
        raise Unreadable(f"damaged ({_short(error)})") from error
    axes = tuple(int(n) for n in shape)
    if len(axes) < 3 or min(axes) < 1:
        raise Unreadable(f"its shape is {' x '.join(map(str, axes)) or 'none'}, and a volume has three axes")
    if dtype.kind not in "biuf":
        raise Unreadable(f"values of type {dtype} are no voxels")
    _affordable(axes[:3])
    spacing = tuple(float(z) for z in zooms[:3])
    if not all(math.isfinite(s) and s > 0 for s in spacing):
        raise Unreadable(f"its voxels are {' x '.join(map(str, spacing))} mm large")
    if not 0 <= offset <= _OFFSET:
        raise Unreadable(f"its voxels begin after {offset:.3g} bytes, and {_OFFSET:,} is the most")
    want = int(offset) + math.prod(axes) * dtype.itemsize
    if size is not None and size < want:
        raise Unreadable(f"truncated: {size:,} of {want:,} bytes")
    return axes[:3], spacing, math.prod(axes[3:]) > 1


def _affordable(shape: Sequence[int]) -> None:
    if math.prod(shape) > _MOST:
        raise Unreadable(f"{' x '.join(f'{n:,}' for n in shape)} voxels, and {_MOST:,} are the most that are read")


def _cubes(path: Path) -> bool:
    """Whether the first .npy file has three axes of about the same length, and the names are those of subjects and dates."""
    names = sorted(p.relative_to(path).as_posix() for p in islice(path.glob("*/**/*.npy"), _FIRST))
    if not named_by_dates(names):
        return False
    first = names[0]
    try:
        with open(path / first, "rb") as file:
            shape, _ = npy_shape(file, (path / first).stat().st_size)
    except Exception:  # damaged, or no array: whoever opens it says how
        return False
    return len(shape) == 3 and min(shape) >= _LEAST and max(shape) <= 2 * min(shape)


def _is_nifti(name: str) -> bool:
    return name.lower().endswith(_NIFTI)


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80] or type(error).__name__
