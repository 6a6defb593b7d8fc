"""What a person can do about an error, in one sentence."""

from __future__ import annotations

import errno
import os

from byol.files import number_of

# Errors of the file system that have a way to be mended.
MENDS = {
    errno.ENOSPC: "the disk is full; free some space, or choose another place with --out",
    errno.EDQUOT: "your quota of that disk is used up; delete something there, or choose another place with --out",
    errno.EFBIG: "larger than files may be there; raise the limit (ulimit -f), or choose another place with --out",
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "not allowed to read or write there; choose another place, e.g. with --out"),
    errno.EIO: "the disk cannot read or write there; check it, or choose another place with --out",
    errno.ENOENT: "there is no such file or folder",
}


LOST = "another process ended, or did not answer in time; go on with byol resume"


def sentence(error: Exception) -> str | None:
    """What a person can do about an error; None for one that is a mistake of ours."""
    name, number = type(error).__name__, number_of(error)
    if name == "Told":  # one of several processes: the first says it
        return ""
    if isinstance(error, OSError) or (name == "SafetensorError" and number):
        return about_file(error, number)
    if name in ("MemoryError", "OutOfMemoryError"):
        return "out of memory; pass a smaller --batch-size (--accumulate keeps the update as large) or --image-size"
    if "RANK" in os.environ and (name == "DistBackendError" or "gloo" in str(error)):
        return LOST
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return "a process that decodes images was killed, as a rule for want of memory; pass fewer --workers"
    return str(error) if isinstance(error, ValueError) else None


def about_file(error: Exception, number: int | None) -> str:
    """What went wrong with which file, and how to mend it."""
    where = f"{name}: " if (name := getattr(error, "filename", None)) else ""
    return where + MENDS.get(number or 0, getattr(error, "strerror", None) or str(error))
