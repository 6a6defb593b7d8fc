"""The same work for many samples in threads: Pillow decodes without holding Python's lock."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

from byol.data.source import Progress

Result = TypeVar("Result")
_CHUNK: Final = 64  # samples per task: handing over single ones would cost more than reading a small header
_AHEAD: Final = 256  # tasks that are handed over before the first is asked for: all of a million files' would take tens of MB


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """How many threads to use: one per core, and some more to wait for the disk."""
    return min(32, cores() + 2)


def each(work: Callable[[int], Result], indices: Sequence[int], progress: Progress | None = None) -> list[Result]:
    """`work(index)` for every index, in their order; progress(done, total) is called as they arrive."""
    return [result for results in stream(work, indices, progress) for result in results]


def stream(work: Callable[[int], Result], indices: Sequence[int], progress: Progress | None = None) -> Iterator[list[Result]]:
    """`work(index)` for every index, in their order, some at a time: for results that are not to be kept as they are."""
    done = 0
    waiting: deque[Future[list[Result]]] = deque()
    # Pillow warns of odd metadata, file by file. The filter belongs to the process, so it is set here and not in the threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pool = ThreadPoolExecutor(threads())
        try:
            starts = iter(range(0, len(indices), _CHUNK))
            while True:
                for start in islice(starts, _AHEAD - len(waiting)):
                    waiting.append(pool.submit(_all, work, indices[start : start + _CHUNK]))
                if not waiting:
                    return
                results = waiting.popleft().result()
                yield results
                done += len(results)
                if progress is not None:
                    progress(done, len(indices))
        finally:
            pool.shutdown(cancel_futures=True)


def _all(work: Callable[[int], Result], chunk: Sequence[int]) -> list[Result]:
    return [work(i) for i in chunk]
