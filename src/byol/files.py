"""Files that are written whole or not at all, and folders that one process at a time writes into."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
_held: set[int] = set()  # file descriptors of the locks of this process


@contextmanager
def atomic(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """A file to write in place of PATH, with its suffix: it becomes PATH at the end, or vanishes if the block fails.

    What was there before goes to KEEP, if given. An OSError names PATH, also where the writer is no Python and names nothing.
    """
    # Always the same name: what a kill leaves behind is written over the next time.
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        # Some writers (safetensors) make files that only their owner can read; whoever may read the run may read these.
        temporary.chmod(mode)
        sync(temporary)
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(temporary, path)
        sync(path.parent)  # the names too: they are what a loss of power would take
    except Exception as error:
        number = number_of(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_ending(path: Path, known: Sequence[str]) -> None:
    """ValueError if the name ends in none of the known endings."""
    if path.suffix.lower() not in known:
        raise ValueError(f"{path} has {f'the ending {path.suffix!r}' if path.suffix else 'no ending'}; give one of {', '.join(known)}")


def write_text(path: Path, text: str) -> None:
    """The text in the file, in UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def append(path: Path, text: str) -> None:
    """The text at the end of the file, in UTF-8; all of it or, after an OSError, none."""
    with path.open("ab", buffering=0) as file:
        before, data = file.tell(), memoryview(text.encode())
        try:
            while data:
                data = data[file.write(data) :]  # a full disk takes a part of the text before it refuses the rest
        except OSError as error:
            file.truncate(before)
            raise OSError(error.errno, error.strerror, str(path)) from error


def number_of(error: Exception) -> int | None:
    """The errno of an error of the file system, also of one that comes from a library in Rust; None for any other error."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # some network folders cannot be synchronised
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """The folder for this process alone; ValueError if another one has it. The lock dies with the process, however it ends.

    Yields False, and nothing is locked, where the file system knows no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(_taken(folder, os.pread(descriptor, 500, 0).decode(errors="replace"))) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            yield False
            return
        with suppress(OSError):  # a full disk: who has it is not said, and that is all
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield True
        with suppress(OSError):
            os.ftruncate(descriptor, 0)
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def let_go() -> None:
    """For a process that was forked: closes the locks that it was born with, so that they die with the process that took them."""
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


def _taken(folder: Path, holder: str) -> str:
    who = f"process {holder}" if holder else "another process"
    return f"{folder} is in use by {who}, which trains in it; wait until that ends or stop it, or choose another folder with --out"
