"""The same work for many samples in threads: Pillow decodes without holding Python's lock."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from byol.data.source import Progress

Result = TypeVar("Result")
_CHUNK: Final = 64  # samples per task: handing over single ones would cost more than reading a small header


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """How many threads to use: one per core, and some more to wait for the disk."""
    return min(32, cores() + 2)


def each(work: Callable[[int], Result], indices: Sequence[int], progress: Progress | None = None) -> list[Result]:
    """`work(index)` for every index, in their order; progress(done, total) is called as they arrive."""
    chunks = [indices[i : i + _CHUNK] for i in range(0, len(indices), _CHUNK)]
    out: list[Result] = []
    # Pillow warns of odd metadata, file by file. The filter belongs to the process, so it is set here and not in the threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pool = ThreadPoolExecutor(threads())
        try:
            for results in pool.map(lambda chunk: [work(i) for i in chunk], chunks):
                out += results
                if progress is not None:
                    progress(len(out), len(indices))
        finally:
            pool.shutdown(cancel_futures=True)
    return out
