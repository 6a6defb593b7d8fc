"""What the C library does with memory that large arrays give back."""

from __future__ import annotations

import ctypes


def keep_freed_memory() -> None:
    """Let the C library keep it for the next ones, where it can be told so (glibc).

    Otherwise the system maps and zeroes every large array anew: a tenth to a fifth of a small network's step on a CPU, and a quarter
    of the decoding of a photo.
    """
    try:
        allocator = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold = -1, -3
    for option in (trim_threshold, mmap_threshold):
        allocator(option, 1 << 30)
