"""A .zip or .tar (.gz, .bz2, .xz) of images, read in place -> a source. Nothing is unpacked to the disk."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final, cast

from byol.data import sniff
from byol.data.compact import Names
from byol.data.encoded import LARGEST, Blobs, look, source_of, too_large
from byol.data.header import bytes_file
from byol.data.labels import from_folders
from byol.data.listing import hidden
from byol.data.patience import passing
from byol.data.source import Progress, Skipped, Source, Unreadable, bytewise

RATIO: Final = 200  # a member, or a stream, that unpacks to so many times its size is refused
_SMALL: Final = 16 << 20  # bytes; members up to here may unpack by any ratio, and are unpacked whole to look at their header
_STREAM: Final = 1 << 30  # bytes; streams up to here may unpack by any ratio
_TEXT: Final = 1 << 20  # bytes of a tar header that is text: long names, comments
_PACKED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, Zstandard
MEMORY_LIMIT: Final = 4 << 30  # bytes of images that a compressed tar may keep in memory


def open_archive(spec: str, path: Path, *, limit: int | None = None, progress: Progress | None = None) -> Source:
    """The images of an archive, in bytewise order of their names; labels from its folders as for a folder.

    Members that are links, or whose path leaves the archive, are counted as ignored.
    """
    blobs, skipped, ignored = members_of(spec, path)
    return source_of(
        blobs,
        look(blobs, progress),
        spec=spec,
        kind="archive",
        labels=lambda used: from_folders(blobs.names.take(used)),
        limit=limit,
        skipped=skipped,
        ignored=ignored,
    )


def members_of(spec: str, path: Path, sounds: bool = False) -> tuple[Blobs, list[Skipped], int]:
    """The regular members, what was skipped, and how many were ignored; of a compressed tar the images alone, or the sounds alone."""
    try:
        return _open_zip(path) if _is_zip(path) else _open_tar(path, sounds)
    except Unreadable as error:
        raise ValueError(f"{spec} {error}") from error
    except Exception as error:  # zipfile and tarfile raise nearly every type of exception on damaged bytes
        raise ValueError(f"{spec} is a damaged archive ({error}); make or fetch it again") from error


def is_archive(path: Path) -> bool:
    """True for a zip or a tar, also for one that is damaged further on."""
    if _is_zip(path):
        return True
    if _start(path).startswith(_PACKED):
        return any(suffix in (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst") for suffix in path.suffixes)
    return _start(path)[257:262] == b"ustar"


def first_names(path: Path, many: int) -> list[str]:
    """About the first `many` names of members, of a compressed tar those in its first megabytes; ValueError or OSError for no archive."""
    try:
        if _is_zip(path):
            with zipfile.ZipFile(path) as archive:
                return archive.namelist()[:many]
        with open(path, "rb") as file:
            packed = _start(path).startswith(_PACKED)
            stream = io.BytesIO(_unpacked(file).read(_SMALL)) if packed else file
            with tarfile.open(path.name, "r:", fileobj=stream, tarinfo=_Info) as tar:
                return _until_damage(tar, many)
    except OSError:
        raise
    except Exception as error:  # zipfile and tarfile raise nearly every type of exception on damaged bytes
        raise ValueError(f"{path} is a damaged archive ({error}); make or fetch it again") from error


def _until_damage(tar: tarfile.TarFile, many: int) -> list[str]:
    names: list[str] = []
    with contextlib.suppress(tarfile.TarError, Unreadable):
        names.extend(member.name for member in islice(_forwards(tar), many))
    return names


def _is_zip(path: Path) -> bool:
    return _start(path).startswith(b"PK\x03\x04") or zipfile.is_zipfile(path)


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(512)


def safe(name: str) -> bool:
    """True for a member path that stays inside the archive."""
    unix = name.replace("\\", "/")
    return not (unix.startswith("/") or re.match(r"[A-Za-z]:", unix) or ".." in unix.split("/"))


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


class InOneFile:
    """For blobs that lie in one file: what has to be there for any of them to be read."""

    path: str

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path) or "."

    def place(self, index: int) -> str:
        return self.path


@dataclass
class _Zip(InOneFile):
    """The members of a zip file, unpacked one by one; zipfile guards its file position, so threads may share it."""

    path: str
    names: Names
    members: Sequence[str]
    _file: zipfile.ZipFile | None = field(default=None, repr=False)
    _process: int = 0  # that opened it

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "names": self.names, "members": self.members, "_file": None, "_process": 0}

    def _zip(self) -> zipfile.ZipFile:
        # Forked processes would share one file position and read each other's bytes: each opens its own.
        if self._file is None or self._process != os.getpid():
            self._file, self._process = zipfile.ZipFile(self.path), os.getpid()
        return self._file

    def open(self, index: int) -> tuple[BinaryIO, int]:
        info = self._info(index)
        try:
            member = self._zip().open(info)
            head = member.read(sniff.HEAD)
            member.seek(0)
        except Exception as error:  # whatever zipfile raises on damaged bytes costs this member only
            raise self._why(error) from error
        # What does not begin like an image is not unpacked any further; what is large is unpacked as it is read.
        if sniff.format_of(head) is None:
            return io.BytesIO(head), info.file_size
        if info.file_size > _SMALL:
            return cast(BinaryIO, member), info.file_size
        return bytes_file(self.load(index))

    def load(self, index: int) -> bytes:
        info = self._info(index)
        try:
            return self._zip().read(info)
        except Exception as error:  # whatever zipfile raises on damaged bytes costs this member only
            raise self._why(error) from error

    def _info(self, index: int) -> zipfile.ZipInfo:
        info = self._zip().getinfo(self.members[index])
        if info.file_size > LARGEST:
            raise Unreadable(f"unpacks to {too_large(info.file_size)}")
        if info.file_size > max(_SMALL, RATIO * info.compress_size):
            raise Unreadable(f"unpacks to {info.file_size:,} bytes from {info.compress_size:,}, as no photo does")
        return info

    def _why(self, error: Exception) -> Exception:
        if not passing(error):
            return Unreadable(_zip_reason(error))
        self._file = None  # opened again the next time: a handle of a network file system may be stale for good
        return error


def _zip_reason(error: Exception) -> str:
    return "encrypted" if "encrypted" in str(error) else f"damaged in the archive ({str(error)[:60] or type(error).__name__})"


def _open_zip(path: Path) -> tuple[Blobs, list[Skipped], int]:
    members: dict[str, str] = {}
    ignored = 0
    with zipfile.ZipFile(path) as archive:
        packed, size = sum(info.compress_size for info in archive.infolist()), path.stat().st_size
        if packed > size:  # members that share their bytes: the whole could unpack to any size
            raise Unreadable(f"claims {packed:,} packed bytes and has {size:,}; make or fetch it again")
        for info in archive.infolist():
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16) or not safe(info.filename) or hidden(info.filename):
                ignored += 1
            else:
                members[_plain(info.filename)] = info.filename
    names = sorted(members, key=bytewise)
    return _Zip(str(path), Names.of(names), [members[n] for n in names]), [], ignored


@dataclass
class PlainTar(InOneFile):
    """The members of an uncompressed tar file: slices of it. Not mapped: a mapped file that shrinks ends the process."""

    path: str
    names: Names
    places: Sequence[tuple[int, int]]  # (offset, size) in bytes

    def open(self, index: int) -> tuple[BinaryIO, int]:
        return bytes_file(self.load(index))

    def part(self, index: int) -> BinaryIO:
        """The member as a file of its own, of any size; nothing of it is read yet."""
        return cast(BinaryIO, io.BufferedReader(_Part(self.path, *self.places[index])))

    def load(self, index: int) -> bytes:
        offset, size = self.places[index]
        if size > LARGEST:
            raise Unreadable(too_large(size))
        with open(self.path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) < size:
            raise Unreadable(f"truncated: {len(data):,} of {size:,} bytes")
        return data


class _Part(io.RawIOBase):
    """Some bytes of a file as a file."""

    def __init__(self, path: str, offset: int, size: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with this
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._offset + self._at)
        got = self._file.readinto(buffer[: max(0, self._size - self._at)])
        self._at += got
        return got

    def close(self) -> None:
        self._file.close()
        super().close()


@dataclass
class _PackedTar(InOneFile):
    """The images or sounds of a compressed tar, which cannot be read from the middle: kept in memory, unpacked once per process."""

    path: str
    names: Names
    sounds: bool
    _data: dict[str, bytes] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "names": self.names, "sounds": self.sounds, "_data": None}

    def open(self, index: int) -> tuple[BinaryIO, int]:
        return bytes_file(self.load(index))

    def load(self, index: int) -> bytes:
        if self._data is None:
            self._data = _unpack(Path(self.path), self.sounds).data
        return self._data[self.names[index]]


@dataclass
class _Members:
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    data: dict[str, bytes] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    ignored: int = 0


def _open_tar(path: Path, sounds: bool) -> tuple[Blobs, list[Skipped], int]:
    packed = _start(path).startswith(_PACKED)
    members = _unpack(path, sounds) if packed else _index(path)
    names = sorted(members.places, key=bytewise)
    if packed:
        return _PackedTar(str(path), Names.of(names), sounds, members.data), members.skipped, members.ignored
    return PlainTar(str(path), Names.of(names), [members.places[n] for n in names]), members.skipped, members.ignored


def _index(path: Path) -> _Members:
    members = _Members()
    with tarfile.open(path, "r:", tarinfo=_Info) as archive:
        _gather(archive, members)
    return members


def plain_tar(file: BinaryIO, name: str) -> _Members:
    """The regular members of an open, uncompressed tar: places, what was skipped and ignored. Raises Exception of nearly every type."""
    members = _Members()
    with tarfile.open(name, "r:", fileobj=file, tarinfo=_Info) as archive:
        _gather(archive, members)
    return members


def _unpack(path: Path, sounds: bool) -> _Members:
    members = _Members()
    with open(path, "rb") as file, _unpacked(file) as stream:
        bounded = cast(BinaryIO, _Bounded(stream, max(_STREAM, RATIO * path.stat().st_size)))
        with tarfile.open(path.name, "r|", fileobj=bounded, tarinfo=_Info) as archive:
            _gather(archive, members, sniff.sound_of if sounds else sniff.format_of)
    return members


def _unpacked(file: BinaryIO) -> BinaryIO:
    head = file.read(6)
    file.seek(0)
    if head.startswith(_PACKED[0]):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if head.startswith(_PACKED[1]):
        return cast(BinaryIO, bz2.BZ2File(file))
    if head.startswith(_PACKED[2]):
        return cast(BinaryIO, lzma.LZMAFile(file))
    raise Unreadable("is packed by Zstandard, which this Python cannot read; pack it as .tar.gz or as a plain .tar")


@dataclass
class _Bounded:
    """A stream that ends with an error when it gives more than it may."""

    stream: BinaryIO
    left: int  # bytes

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise Unreadable(f"unpacks to more than {RATIO} times its size, as no photos do; make or fetch it again")
        return data


class _Info(tarfile.TarInfo):
    """A header that may not be what takes memory or goes backwards."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Info:
        found = super().frombuf(buf, encoding, errors)
        text = found.type in (*_TEXTS, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if found.size < 0 or (text and found.size > _TEXT):
            raise Unreadable(f"is a damaged archive (a header of {found.size:,} bytes); make or fetch it again")
        return found


_TEXTS: Final = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)


def _gather(archive: tarfile.TarFile, members: _Members, keep: Callable[[bytes], str | None] | None = None) -> None:
    """Notes every regular member that stays inside the archive; of a stream also the bytes of what `keep` knows by its beginning."""
    held = 0
    try:
        for member in _forwards(archive):
            if member.isdir():
                continue
            if not member.isreg() or member.issparse() or not safe(member.name) or hidden(member.name):
                members.ignored += 1
                continue
            name = _plain(member.name)
            if keep is not None:
                members.data[name] = _member_bytes(archive, member, keep)
                held += len(members.data[name])
            members.places[name] = (member.offset_data, member.size)
            if held > MEMORY_LIMIT:
                raise Unreadable(
                    f"is compressed as one stream and holds more than {MEMORY_LIMIT >> 30} GB of images; "
                    "unpack it, or pack it as an uncompressed .tar or a .zip"
                )
    except Unreadable:
        raise
    except Exception as error:
        # Half an archive still holds good images; what is lost is said.
        if not members.places or passing(error):
            raise
        members.skipped.append(Skipped(Path(os.fsdecode(archive.name or "")).name, f"the archive ends early ({str(error)[:60]})"))


def _forwards(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members; tarfile goes round for ever where a size below zero leads back."""
    last = -1
    for member in archive:
        if member.offset <= last or member.size < 0:
            raise Unreadable("is a damaged archive (a member of less than 0 bytes); make or fetch it again")
        last = member.offset
        yield member
        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header, which for a million members is a GB


def _member_bytes(archive: tarfile.TarFile, member: tarfile.TarInfo, keep: Callable[[bytes], str | None]) -> bytes:
    """The member's bytes; of what is not wanted, only the beginning."""
    file = archive.extractfile(member)
    if file is None:
        return b""
    head = file.read(sniff.HEAD)
    if keep(head) is None or member.size > LARGEST:
        return head
    return head + file.read()
