"""One file's header: what it is and how large, without decoding it - unless its end hints that some of it is missing."""

from __future__ import annotations

import io
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from byol.data import decode, sniff
from byol.data.patience import passing
from byol.data.quick import FIRST, plain
from byol.data.source import Kind, Unreadable


class Header(NamedTuple):
    """What is known of one sample without decoding it."""

    kind: Kind
    height: int  # pixels, upright
    width: int  # pixels, upright
    nbytes: int


def inspect(file: BinaryIO, size: int, name: str) -> Header | None:
    """An open file of `size` bytes -> its header; None for what was never meant as an image; raises Unreadable.

    The content decides, not the name; but a file that is called .jpg and is no image at all is worth telling.
    """
    first = file.read(FIRST)
    head = first[: sniff.HEAD]
    form = sniff.format_of(head)
    if form is None:
        promised = sniff.promised(name)
        if promised is None:
            return None
        raise Unreadable("0 bytes" if size == 0 else f"not {_article(promised)} (starts with {sniff.start_of(head)})")
    try:
        return _npy(file, size) if form == "NPY" else _image(file, size, form, first)
    except Unreadable:
        raise
    except Exception as error:  # Pillow's plug-ins raise nearly every type of exception on damaged bytes
        if passing(error):
            raise
        raise Unreadable(decode.why(error, form, head, _tail_or_none(file, size), size)) from error


def _article(form: str) -> str:
    return f"an {form}" if form[0] in "AH" and form != "HEIC" and form != "HEIF" else f"a {form}"


def _tail(file: BinaryIO, size: int) -> bytes:
    file.seek(max(0, size - sniff.TAIL))
    return file.read(sniff.TAIL)


def _tail_or_none(file: BinaryIO, size: int) -> bytes:
    try:
        return _tail(file, size)
    except Exception:  # a damaged member of an archive, whose end cannot be had
        return b""


def _image(file: BinaryIO, size: int, form: str, first: bytes) -> Header:
    head, tail = first[: sniff.HEAD], _tail(file, size)
    whole = sniff.looks_whole(form, head, tail, size)
    found = plain(form, first) if whole else None
    if found is not None:
        return Header(found.kind, found.height, found.width, size)
    if not isinstance(file, io.FileIO):
        return _by_pillow(file, size, form, whole)
    # Pillow reads in small steps, each of which would be a call to the system without a buffer.
    buffered = io.BufferedReader(file)
    try:
        return _by_pillow(buffered, size, form, whole)
    finally:
        buffered.detach()  # dropped, it would close the file, whose end may still be asked for


def _by_pillow(file: BinaryIO, size: int, form: str, whole: bool) -> Header:
    file.seek(0)
    image = decode.open_image(file, form)
    height, width, kind = image.height, image.width, decode.kind_of_image(image)
    # Only a header that holds EXIF is searched: asking a PNG without it would decode the PNG.
    if "exif" in image.info and decode.orientation(image) >= 5:
        height, width = width, height
    if not whole or _strips_end(image) > size:
        file.seek(0)
        with decode.one_at_a_time(size):
            decode.decode(file.read())
    return Header(kind, height, width, size)


def _strips_end(image: Image.Image) -> int:
    """The byte where the last strip or tile of a TIFF ends; 0 for other formats."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return 0
    ends = [0]
    for offsets, counts in ((273, 279), (324, 325)):
        ends += [a + b for a, b in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)]
    return max(ends)


def _npy(file: BinaryIO, size: int) -> Header:
    shape, dtype = decode.npy_shape(file, size)
    height, width, channels = decode.channels_last(np.broadcast_to(np.zeros((), np.uint8), shape)).shape
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    return Header(Kind("npy", colour, channels, decode.depth_of(dtype)), height, width, size)


def bytes_file(data: bytes) -> tuple[BinaryIO, int]:
    """Bytes -> (an open file of them, their number)."""
    return io.BytesIO(data), len(data)
