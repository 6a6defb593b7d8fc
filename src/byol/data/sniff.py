"""What a file is by its first bytes, whatever it is called."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

HEAD: Final = 64  # bytes that are enough to tell
TAIL: Final = 12

_PREFIXES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"qoif", "QOI"),
    (b"\x93NUMPY", "NPY"),
)
_BMP_HEADERS: Final = (12, 40, 52, 56, 64, 108, 124)  # bytes; the sizes that BMP versions have
_PPM: Final = re.compile(rb"P[1-6]\s+(#|\d)")
# A file called so was meant as an image: when it is none, that is worth telling.
_SUFFIXES: Final = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".gif": "GIF", ".webp": "WebP",
    ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".ppm": "PPM", ".pgm": "PGM", ".pbm": "PBM", ".pnm": "PNM",
    ".jp2": "JPEG 2000", ".j2k": "JPEG 2000", ".avif": "AVIF", ".heic": "HEIC", ".heif": "HEIF", ".qoi": "QOI", ".npy": "NumPy array",
}  # fmt: skip
_SOUNDS: Final = (
    (b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"ID3", "MP3"), (b".snd", "AU"), (b"caff", "CAF"), (b"NIST_1A", "SPHERE"),
    (b"riff.\x91\xcf\x11", "W64"),
)  # fmt: skip
_SOUND_SUFFIXES: Final = {
    ".wav": "WAV", ".wave": "WAV", ".flac": "FLAC", ".ogg": "Ogg", ".oga": "Ogg", ".opus": "Ogg", ".mp3": "MP3", ".aif": "AIFF",
    ".aiff": "AIFF", ".aifc": "AIFF", ".au": "AU", ".snd": "AU", ".caf": "CAF", ".w64": "W64", ".rf64": "WAV",
    ".m4a": "AAC", ".aac": "AAC", ".wma": "WMA",
}  # fmt: skip
_OTHERS: Final = (
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"PAR1", "a Parquet table"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"RIFF", "audio or video"),
    (b"OggS", "audio or video"),
    (b"ID3", "audio"),
    (b"fLaC", "audio"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
)


def format_of(head: bytes) -> str | None:
    """The format that the first bytes show, by Pillow's name or "NPY" or "HEIC"; None when it is no image that we know."""
    for prefix, name in _PREFIXES:
        if head.startswith(prefix):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}.get(head[8:12])
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return "PPM" if _PPM.match(head) else None


def promised(name: str) -> str | None:
    """The image format that a file name promises ("JPEG"), or None when it promises no image."""
    return _SUFFIXES.get(PurePosixPath(name).suffix.lower())


def sound_of(head: bytes) -> str | None:
    """The format of a sound that the first bytes show; None when it is no sound that we know."""
    for prefix, name in _SOUNDS:
        if head.startswith(prefix):
            return name
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    # A frame of MPEG layer III, with a bit rate and a sampling rate that there are.
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2 and head[2] & 0xF0 != 0xF0 and head[2] & 0x0C != 0x0C:
        return "MP3"
    return None


def sound_promised(name: str) -> str | None:
    """The format of a sound that a file name promises ("WAV"), or None when it promises no sound."""
    return _SOUND_SUFFIXES.get(PurePosixPath(name).suffix.lower())


def kind_of(head: bytes) -> str:
    """What a file that is no image is, in words: "plain text", "a PDF", "a zip archive"."""
    if not head:
        return "0 bytes"
    for prefix, words in _OTHERS:
        if head.startswith(prefix):
            return words
    if head[4:8] == b"ftyp":
        return "a video"
    return "plain text" if _text(head) is not None else "unknown binary data"


def start_of(head: bytes) -> str:
    """The first bytes for a message: `"<html>"` when they are text, else `00 01 02 03`."""
    text = _text(head)
    if text is None:
        return head[:4].hex(" ")
    tag = re.match(r"\s*(<[^>\s]{1,14}>?|\S{1,16})", text)
    return f'"{tag[1]}"' if tag else '" "'


def _text(head: bytes) -> str | None:
    text = head.decode("utf-8", "ignore")
    # A multi-byte letter may be cut at the end, so a few bytes may be missing; control characters may not be there.
    whole = len(text.encode()) >= len(head) - 3
    return text if whole and all(c.isprintable() or c in "\t\r\n\f\ufeff" for c in text) else None


def stored_size(form: str, head: bytes) -> int | None:
    """The bytes that the file should have by its own header, where the format tells (WebP, BMP)."""
    if form == "WEBP":
        return int.from_bytes(head[4:8], "little") + 8
    if form == "BMP":
        return int.from_bytes(head[2:6], "little") or None
    return None


def looks_whole(form: str, head: bytes, tail: bytes, size: int) -> bool:
    """False when the end of the file hints that some of it is missing; decoding it then settles the question."""
    if form == "JPEG":
        return tail.endswith(b"\xff\xd9")
    if form == "PNG":
        return tail[-8:-4] == b"IEND"
    if form == "GIF":
        return tail.endswith(b";")
    return size >= (stored_size(form, head) or 0)
