"""Timing side by side: every contender once a round, in turns, so that what slows the machine slows them all."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits

Job = Callable[[], object]


@dataclass(frozen=True)
class Time:
    """Seconds of one call over the rounds."""

    median: float
    best: float
    worst: float


def side_by_side(
    jobs: Mapping[str, Job],
    *,
    rounds: int = 7,
    warm: int = 1,
    wait: Job = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Time]:
    """Each job once a round; the first `warm` rounds are not counted. `wait` is called before each `clock` is read, in seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(warm + rounds):
        for name, job in jobs.items():
            wait()
            began = clock()
            job()
            wait()
            if number >= warm:
                seconds[name].append(clock() - began)
    return {name: Time(statistics.median(s), min(s), max(s)) for name, s in seconds.items()}


@contextlib.contextmanager
def cores(count: int) -> Iterator[None]:
    """This process and its threads on so many cores, torch, OpenCV and NumPy's BLAS with as many threads; as it was afterwards.

    Two threads of a BLAS on one core wait for each other in a loop, and make whoever calls it several times as slow.
    """
    affinity, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, sorted(affinity)[:count])
    torch.set_num_threads(count)
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(count)
    try:
        with threadpool_limits(count):
            yield
    finally:
        os.sched_setaffinity(0, affinity)
        torch.set_num_threads(threads)


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: the first column to the left, the others to the right."""
    widths = [max(len(row[c]) for row in (head, *rows)) for c in range(len(head))]
    print(f"\n{title}")
    for row in (head, *rows) if any(head) else rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  " + "  ".join(cells).rstrip())


def finish(name: str, result: Mapping[str, object]) -> None:
    """The machine-readable line, the last one of the output."""
    print()
    print(json.dumps({"benchmark": name, **machine(), **result}), flush=True)


def peer(name: str) -> bool:
    """Whether a package to compare with is installed; says how to get it where it is not."""
    from importlib.util import find_spec

    if find_spec(name) is not None:
        return True
    print(f"{name} is not installed, so it is left out; `uv sync --group bench` brings it", file=sys.stderr)
    return False
