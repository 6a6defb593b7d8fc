"""Images of one size that fit into memory, as one array."""

from __future__ import annotations

from typing import Final

import numpy as np

from byol.data.parallel import each
from byol.data.source import Pixels, Progress, Source, Unreadable

MAX_BYTES: Final = 2 << 30


def load_memory(source: Source, *, max_bytes: int = MAX_BYTES, progress: Progress | None = None) -> tuple[Pixels | None, Source]:
    """Source -> ((N, C, H, W) of its dtype, the source of exactly these N images); the rows are in the order of the source.

    The array is None when the images differ in size or would take more than `max_bytes`. Images that turn out unreadable are
    left out of the array and moved to `skipped` of the returned source.
    """
    size = _size(source)
    if size is None:
        return None, source
    height, width = size
    itemsize = np.dtype(source.dtype).itemsize
    if len(source) * source.channels * height * width * itemsize > max_bytes:
        return None, source
    out = np.empty((len(source), source.channels, height, width), source.dtype)
    failed = {i: reason for i, reason in enumerate(each(lambda i: _fill(source, i, out), range(len(source)), progress)) if reason}
    if _OTHER_SIZE in failed.values():  # a header that says another size than the picture has
        return None, source.without({i: r for i, r in failed.items() if r != _OTHER_SIZE})
    if not failed:
        return out, source
    if len(failed) == len(source):
        raise ValueError(f"{source.spec} holds {len(source):,} images and none of them can be decoded (first: {failed[0]})")
    return out[[i for i in range(len(source)) if i not in failed]], source.without(failed)


_OTHER_SIZE: Final = "another size than its header says"


def _size(source: Source) -> tuple[int, int] | None:
    """The common (height, width), or None when they differ."""
    if len(source.headers):
        return (int(source.headers.height[0]), int(source.headers.width[0])) if source.headers.one_size() else None
    for i in range(len(source)):
        try:
            height, width, _ = source.read(i).shape
        except Unreadable:
            continue
        return height, width
    return None


def _fill(source: Source, index: int, out: Pixels) -> str:
    """Decodes one image into its row; the reason when that fails, else ""."""
    try:
        image = source.read(index)
    except Unreadable as error:
        return str(error)
    if image.shape[:2] != out.shape[2:]:
        return _OTHER_SIZE
    out[index] = np.moveaxis(image, 2, 0)
    return ""
