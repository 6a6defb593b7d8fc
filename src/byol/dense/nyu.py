"""NYU depth v2's labelled .mat file (MATLAB 7.3, which is HDF5), read through h5py where that is installed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from byol.data import shown
from byol.dense.pictures import Array, Split, hold_out

if TYPE_CHECKING:
    import h5py

SPLITS = "splits.mat"  # of the 1,449 images: 795 to learn from, 654 to be tested on


@dataclass(frozen=True)
class Nyu:
    """Some images of the file; MATLAB's axes are the reverse of NumPy's."""

    file: h5py.File
    rows: tuple[int, ...]
    # HDF5 is read by one thread at a time.
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> Array:
        with self.lock:
            return np.asarray(self.file["images"][self.rows[index]]).transpose(2, 1, 0)  # (3, W, H)

    def target(self, index: int) -> Array:
        with self.lock:
            metres = np.asarray(self.file["depths"][self.rows[index]], np.float32).T  # (W, H)
        return np.where(np.isfinite(metres), metres, np.float32(0))

    def take(self, rows: list[int]) -> Nyu:
        return replace(self, rows=tuple(self.rows[i] for i in rows))


def open_nyu(path: Path) -> Split:
    """The official split where splits.mat lies beside the file, else the last fifth is the test set."""
    try:
        import h5py
    except ImportError:
        raise ValueError(f"{shown(str(path))} is HDF5 and h5py is not installed; pip install h5py, or unpack it to folders") from None
    try:
        file = h5py.File(path, "r")
        images, depths = file["images"], file["depths"]
        fits = images.ndim == 4 and images.shape[1] == 3 and depths.shape == (len(images), *images.shape[2:])
    except (OSError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"{shown(str(path))} is not NYU v2's labelled file ({str(error)[:80]}); download it again") from None
    if not fits:
        raise ValueError(f"{shown(str(path))}: images {images.shape} and depths {depths.shape} do not belong together; download it again")
    whole = Nyu(file, tuple(range(len(images))))
    if not (path.parent / SPLITS).is_file():
        return hold_out(whole)
    train, test = (_indices(path.parent / SPLITS, key, len(whole)) for key in ("trainNdxs", "testNdxs"))
    return Split(whole.take(train), whole.take(test), "the official split")


def _indices(path: Path, key: str, n: int) -> list[int]:
    from scipy.io import loadmat  # scikit-learn needs scipy

    try:
        rows = [int(i) - 1 for i in np.asarray(loadmat(path)[key]).ravel()]  # MATLAB counts from 1
    except Exception as error:  # scipy raises many types on damaged bytes
        raise ValueError(f"{shown(str(path))} holds no {key} ({type(error).__name__}); download it again, or move it away") from None
    if not rows or min(rows) < 0 or max(rows) >= n:
        raise ValueError(f"{shown(str(path))} is not for a file of {n:,} images; download it again, or move it away")
    return rows
