"""Local copies of remote shards, in a folder that several processes share and that stays below a size.

A copy is named by a digest of the URL, size and mark (ETag or time) of the file, so a file that changed has another name; it gets
that name when it is complete, and its size is compared whenever it is used. One process fetches a shard while the others that
want it wait. When there is no room, the copies that were not used for longest go. What a process has open stays readable.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from byol.data import remote
from byol.data.remote import Remote
from byol.data.source import Unreadable

FOLDER: Final = "BYOL_CACHE"  # environment: the folder of the copies
LIMIT: Final = "BYOL_CACHE_LIMIT"  # environment: their bytes in all, as "200 GB"
_DEFAULT: Final = 50 * 10**9
_FREE: Final = 0.9  # of what is free on the disk, at most
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def cache_folder() -> Path:
    """Where copies and indexes of shards lie: $BYOL_CACHE, else byol/shards in the user's folder of caches."""
    if given := os.environ.get(FOLDER):
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "byol" / "shards"


def open_cache() -> Cache:
    """The cache as the environment describes it, no larger than the disk allows; ValueError when it cannot be had."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ValueError(
            f"{folder} cannot hold copies of shards ({(error.strerror or '').lower()}); set {FOLDER} to another folder"
        ) from None
    used = sum(size for _, size, _ in _copies(folder))
    return Cache(str(folder), min(_bytes(os.environ.get(LIMIT, "")), used + int(free * _FREE)))


def _bytes(text: str) -> int:
    if not text.strip():
        return _DEFAULT
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text.upper())
    if match is None:
        raise ValueError(f"{LIMIT}={text} is no size; give bytes, or a number with KB, MB, GB or TB")
    return int(float(match[1]) * _UNITS[match[2]])


@dataclass(frozen=True)
class Cache:
    """A folder of copies; holds nothing but its place, so processes share it by sharing that."""

    folder: str
    limit: int  # bytes of all copies, those on their way with their full size

    def get(self, shard: Remote) -> Path | None:
        """The complete copy, noted as used; None when there is none."""
        path = self._path(shard)
        try:
            if path.stat().st_size != shard.size:
                path.unlink(missing_ok=True)
                return None
            os.utime(path)
            return path
        except OSError:
            return None

    def fetch(self, shard: Remote) -> Path:
        """The complete copy, fetched if it is not there; raises Unreadable."""
        path = self._path(shard)
        partial = path.with_suffix(f".{shard.size}.partial")
        while (found := self.get(shard)) is None:
            with _locked(partial) as mine:
                if not mine or self.get(shard) is not None:
                    continue  # another process came first
                try:
                    self._make_room(shard.size, partial)
                    remote.download(shard, partial)
                    os.replace(partial, path)
                except OSError as error:
                    raise Unreadable(f"no copy in {self.folder}: {(error.strerror or str(error)).lower()}") from error
        return found

    def _path(self, shard: Remote) -> Path:
        identity = f"{shard.url}\0{shard.size}\0{shard.mark}".encode()
        return Path(self.folder) / f"{hashlib.sha256(identity).hexdigest()[:32]}.tar"

    def _make_room(self, size: int, own: Path) -> None:
        """Removes copies, those first that were used last the longest ago, until the new one fits."""
        if size > self.limit:
            raise Unreadable(f"{size:,} bytes are more than the cache may hold ({self.limit:,}); set {LIMIT}")
        with _locked(Path(self.folder) / ".lock", keep=True):
            coming = [p for p in Path(self.folder).glob("*.partial") if p != own and not _abandoned(p)]
            copies = _copies(Path(self.folder))
            total = size + sum(int(p.suffixes[-2][1:]) for p in coming) + sum(c[1] for c in copies)
            for _, bytes_, path in sorted(copies):
                if total <= self.limit:
                    return
                path.unlink(missing_ok=True)
                total -= bytes_


def _copies(folder: Path) -> list[tuple[int, int, Path]]:
    """(time of the last use, bytes, path) of every copy."""
    found = []
    for path in folder.glob("*.tar"):
        with contextlib.suppress(OSError):
            status = path.stat()
            found.append((status.st_mtime_ns, status.st_size, path))
    return found


@contextlib.contextmanager
def _locked(path: Path, *, keep: bool = False) -> Iterator[bool]:
    """Alone with the file, made if need be and removed afterwards unless `keep`; False if another process removed it meanwhile.

    The system lets go of the lock when a process ends, however it ends.
    """
    with open(path, "ab") as file:
        _lock(file, wait=True)
        try:
            yield _is(file, path)
        finally:
            # Under its name there may be another file by now, which is somebody else's.
            if not keep and _is(file, path):
                path.unlink(missing_ok=True)
            _unlock(file)


def _abandoned(partial: Path) -> bool:
    """True when no process is filling it (any more); then it is removed."""
    try:
        with open(partial, "rb") as file:
            if not _lock(file, wait=False):
                return False
            if _is(file, partial):
                partial.unlink(missing_ok=True)
            _unlock(file)
            return True
    except OSError:
        return True


def _lock(file: IO[bytes], *, wait: bool) -> bool:
    try:
        import fcntl
    except ImportError:
        raise ValueError("remote shards need a system with file locks (Linux, macOS); fetch them to this machine first") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: IO[bytes]) -> None:
    """Lets go at once: closing would not, where a worker process was forked meanwhile and has the file open, too."""
    import fcntl

    fcntl.flock(file, fcntl.LOCK_UN)


def _is(file: IO[bytes], path: Path) -> bool:
    """True while the open file is what lies under that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
