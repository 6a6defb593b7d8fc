"""Bytes from afar through fsspec: what a file is, a range of it, all of it into a local file; what fails is tried again.

No more than a few MiB of a file that is fetched whole are in memory at a time.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from byol.data.source import Unreadable

TRIES: Final = 4
WAIT: float = 0.5  # seconds before the second try; twice as long before each further one
_CONNECT, _SILENT = 30, 60  # seconds until a server that does not answer, or stops in the middle, counts as failed
_MARKS: Final = ("ETag", "etag", "Content-MD5", "Last-Modified", "LastModified", "mtime", "created")

# The file systems that were used, never let go of. A forked process that does would close their connections, and with that take them out
# of the epoll object that it shares with its parent, which would wait in vain (test_connections_outlive_a_worker_that_is_forked).
_KEPT: Final[dict[int, object]] = {}

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Remote:
    """A file that lies elsewhere, as it was when it was looked at."""

    url: str
    size: int  # bytes
    mark: str  # what else changes when the file does: its ETag, its time; "" where the server tells none
    ranges: bool = True  # parts of it can be asked for


def is_url(text: str) -> bool:
    """True for `s3://...`, `https://...` and the like."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text) is not None


def found(url: str) -> Remote:
    """What the file is; raises Unreadable."""
    return tried(lambda: _found(url))


def matching(pattern: str) -> list[str]:
    """The URLs that match a pattern with *, ? or [...], sorted; raises Unreadable."""
    files, path = file_system(pattern)
    return sorted(files.unstrip_protocol(match) for match in tried(lambda: files.glob(path)))


def read(remote: Remote, start: int, size: int) -> bytes:
    """So many bytes from there; fewer where the file ends. Raises Unreadable, and NoRanges when the server only gives whole files."""
    return tried(lambda: _range(remote, start, size))


class NoRanges(Exception):
    """The server sends the whole file whatever is asked for."""


def download(remote: Remote, path: Path) -> None:
    """The whole file into a local one; raises Unreadable, also when it is no longer what it was."""
    tried(lambda: _download(remote, path))


def at_a_time(count: int, work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`work` of every item, in their order, by so many threads, for which a program that is stopped does not wait as for a pool's."""
    futures = [Future[Result]() for _ in items]
    left = iter(zip(futures, items, strict=True))
    lock = threading.Lock()

    def serve() -> None:
        while True:
            with lock:
                pair = next(left, None)
            if pair is None:
                return
            future, item = pair
            try:
                future.set_result(work(item))
            except BaseException as error:
                future.set_exception(error)

    for _ in range(min(count, len(items))):
        threading.Thread(target=serve, daemon=True).start()
    try:
        for future in futures:
            yield future.result()
    finally:
        with lock:
            deque(left, maxlen=0)


def tried(work: Callable[[], Result]) -> Result:
    """The result of the first of a few tries that has one; raises Unreadable with the reason of the last."""
    for place in range(TRIES):
        try:
            return work()
        except (Unreadable, NoRanges):
            raise
        except Exception as error:  # every file system of fsspec raises its own
            if (final := _final(error)) is not None:
                raise Unreadable(final) from error
            if place == TRIES - 1:
                raise Unreadable(f"{_reason(error)}, {TRIES} times") from error
        time.sleep(WAIT * 2**place)
    raise AssertionError


def file_system(url: str) -> tuple[Any, str]:
    """(fsspec's file system for the URL, the path there); ValueError where a package for it is missing."""
    try:
        import fsspec
    except ImportError:
        raise ValueError(f"{url} lies elsewhere, and fsspec is not installed to read it: pip install 'byol[remote]'") from None
    protocol = url.split("://")[0]
    try:
        # fsspec keeps one for each thread and process, so asking again costs little.
        files, path = fsspec.core.url_to_fs(url, **_options(protocol))
    except ImportError as error:
        package = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}.get(protocol, "")
        how = f"pip install {package}" if package else str(error).split("\n")[0]
        raise ValueError(f"{url} cannot be read without another package: {how}") from None
    except ValueError as error:
        raise ValueError(f"{url} cannot be read: {error}") from None
    _KEPT[id(files)] = files
    return files, str(path)


def _options(protocol: str) -> dict[str, object]:
    if protocol not in ("http", "https"):
        return {}
    import aiohttp

    # Its own limit is five minutes for a whole file, however well it comes in.
    return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENT)}}


def _found(url: str) -> Remote:
    files, path = file_system(url)
    files.invalidate_cache()
    about = files.info(path)
    if about.get("type") == "directory":
        raise Unreadable("a folder, not a file")
    if not isinstance(about.get("size"), int):
        raise Unreadable("the server does not tell its size")
    mark = next((str(about[m]) for m in _MARKS if about.get(m)), "")
    return Remote(url, about["size"], mark, bool(about.get("partial", True)))


def _range(remote: Remote, start: int, size: int) -> bytes:
    files, path = file_system(remote.url)
    end = min(start + size, remote.size)
    if end <= start:
        return b""
    if not remote.url.startswith(("http://", "https://")):
        return bytes(files.cat_file(path, start=start, end=end))
    # cat_file would take a whole file into memory from a server that knows no ranges; an open file refuses it.
    with files.open(path, "rb", cache_type="none", size=remote.size) as file:
        file.seek(start)
        try:
            data = bytes(file.read(end - start))
        except ValueError as error:
            raise NoRanges from error
    if len(data) < end - start:
        raise OSError(f"{len(data):,} of {end - start:,} bytes came")
    return data


def _download(remote: Remote, path: Path) -> None:
    now = _found(remote.url)
    if (now.size, now.mark) != (remote.size, remote.mark):
        raise Unreadable("changed since it was indexed")
    files, there = file_system(remote.url)
    files.get_file(there, str(path))
    came = path.stat().st_size
    if came != remote.size:
        raise OSError(f"{came:,} of {remote.size:,} bytes came")


def _final(error: Exception) -> str | None:
    """The reason of an error that asking again would not change; None for others."""
    status = _status(error)
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and error.__cause__ is None):
        return "missing"
    if status in (401, 403) or isinstance(error, PermissionError):
        return "no permission to read it"
    return None


def _status(error: BaseException) -> int:
    """The status of HTTP that an error or its cause has; 0 for none. fsspec calls a file missing whatever the server said of it."""
    status = getattr(error, "status", 0)
    if isinstance(status, int) and status > 0:
        return status
    return _status(error.__cause__) if error.__cause__ is not None else 0


def _reason(error: BaseException) -> str:
    """The error in a few words."""
    if status := _status(error):
        return f"HTTP {status}"
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (str(error).split("\n")[0] or type(error).__name__)[:80]
