"""Reading again what could not be read just now: a network folder that is away for a minute, a hiccup of a disk.

Only errors of the system that may pass are waited for; a file that is gone, forbidden or damaged is not. A folder that is away
is waited for once: all threads share the time since it went, and when that is used up the next samples fail at once.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

TOTAL: Final = 90.0  # seconds that a folder may be away
ALONE: Final = 6.0  # seconds for one file among others that can be read
TRIES: Final = 20  # files that are waited for alone; those after them get one more try
_FIRST, _LONGEST = 0.1, 8.0  # seconds, the pauses: each twice the one before

_PASSING: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENODEV", "ENXIO",
        "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ENOTCONN", "EPIPE", "EPROTO", "ENOLINK", "EAGAIN", "EBUSY", "ENOMEM",
        "EMFILE", "ENFILE",
    )
    if hasattr(errno, name)
)  # fmt: skip
_GONE: Final = (errno.ENOENT, errno.ENOTDIR)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Waited:
    """A sample that had to be waited for and came."""

    name: str
    reason: str
    seconds: float


def passing(error: Exception) -> bool:
    """True for an error of the system that may be over in a minute; damaged bytes never give one."""
    return isinstance(error, OSError) and error.errno in _PASSING


class Patience:
    """When to try again, for one source; pickles as a new one, so each process waits for itself."""

    def __init__(self, folder: str, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._sleep, self._clock = sleep, clock
        self._good: deque[str] = deque(maxlen=3)  # files that were read, to ask whether it is the folder or one file
        self._away_since: float | None = None
        self._spent: set[str] = set()  # samples that were waited for in vain
        self._in_a_row = 0  # of them, without one in between that came
        self._waited: list[Waited] = []
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Patience], tuple[str]]:
        return Patience, (self.folder,)

    def read(self, name: str, path: str, work: Callable[[], Result]) -> Result:
        """What `work` gives; an OSError that may pass is tried again, with growing pauses, until the time for it is used up."""
        try:
            found = work()
        except OSError as error:
            return self._again(name, path, work, error)
        self._came(path)
        return found

    def _again(self, name: str, path: str, work: Callable[[], Result], error: OSError) -> Result:
        began = self._clock()
        for pause in _pauses():
            left = self._left(name, error, self._clock() - began)
            if left <= 0:
                raise error
            reason = (error.strerror or str(error)).lower()
            self._sleep(min(pause, left))
            try:
                found = work()
            except OSError as another:
                error = another
                continue
            with self._lock:
                self._waited.append(Waited(name, reason, round(self._clock() - began, 1)))
            self._came(path)
            return found
        raise AssertionError("there is always another pause")

    def waited(self) -> list[Waited]:
        """What had to be waited for since this was asked last."""
        with self._lock:
            found, self._waited = self._waited, []
        return found

    def _left(self, name: str, error: OSError, waited: float) -> float:
        """Seconds for which it may still be tried again."""
        if not passing(error) and not (error.errno in _GONE and not self._there()):
            return 0.0
        now = self._clock()
        if self._good and self._there():
            return self._left_alone(name, waited)
        with self._lock:
            if self._away_since is None:
                self._away_since = now
            return TOTAL - (now - self._away_since)

    def _left_alone(self, name: str, waited: float) -> float:
        with self._lock:
            if name in self._spent or self._in_a_row >= TRIES:
                return 0.0
            left = (ALONE if len(self._spent) < TRIES else _FIRST) - waited
            if left > 1e-3:
                return left
            self._spent.add(name)
            self._in_a_row += 1
            return 0.0

    def _there(self) -> bool:
        """Whether the folder is there and one of the files that were read before can still be opened."""
        return os.path.isdir(self.folder) and (not self._good or any(map(_opens, tuple(self._good))))

    def _came(self, path: str) -> None:
        self._away_since, self._in_a_row = None, 0
        self._good.append(path)


def _pauses() -> Iterator[float]:
    pause = _FIRST
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST)


def _opens(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            file.read(1)
    except OSError:
        return False
    return True
