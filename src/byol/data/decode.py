"""Encoded image -> (H, W, C) array, for every kind of image that Pillow opens and for .npy files."""

from __future__ import annotations

import functools
import io
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from byol.data.sniff import HEAD, TAIL, format_of, kind_of, looks_whole, stored_size
from byol.data.source import Depth, Kind, Pixels, Unreadable

_ORIENTATION: Final = 0x0112  # the EXIF tag
_SIXTEEN: Final = ("I;16", "I;16L", "I;16B", "I;16N")
_LARGE: Final = 1 << 26  # bytes or pixels; what is larger is decoded alone
_SCANS: Final = 500  # of a JPEG, each of which goes over the whole picture; cameras and programs make about ten

_turn = threading.RLock()


def _new_turn() -> None:
    global _turn
    _turn = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_turn)  # a thread of the parent may hold it, which the child has not


@contextmanager
def one_at_a_time(size: int) -> Iterator[None]:
    """Very large images in turn, whatever the number of threads, so that the memory for decoding is that of one."""
    if size < _LARGE:
        yield
        return
    with _turn:
        yield


def read_image(image: str | Path | bytes) -> Pixels:
    """Path or encoded bytes -> (H, W, C) uint8, uint16 or float32, upright; raises Unreadable.

    8-bit images have 1 or 3 channels: palettes and CMYK become RGB, transparency is laid on white, 1-bit becomes 0 and 255.
    16-bit grey stays uint16, other integers and floats become float32; of an animation the first frame counts. Pillow reads
    16-bit colour as 8 bit, so that is what comes back. A .npy file holds (H, W), (H, W, C) or (C, H, W).
    """
    if isinstance(image, bytes):
        return decode(image)
    try:
        return decode(Path(image).read_bytes())
    except OSError as error:
        raise Unreadable(file_error(error)) from error


def decode(data: bytes, shrink: int = 1) -> Pixels:
    """Encoded bytes -> (H, W, C) uint8, uint16 or float32; raises Unreadable.

    A JPEG may come `shrink` = 2, 4 or 8 times smaller, rounded up: its decoder then leaves out the detail and most of the work.
    """
    form = format_of(data[:HEAD])
    if form is None:
        raise Unreadable(f"not an image ({kind_of(data[:HEAD])})")
    try:
        array = read_npy(io.BytesIO(data)) if form == "NPY" else _decode_image(data, form, shrink)
    except Unreadable:
        raise
    except Exception as error:  # Pillow's plug-ins raise nearly every type of exception on damaged bytes
        raise Unreadable(why(error, form, data[:HEAD], data[-TAIL:], len(data))) from error
    return finite(array)


def open_image(file: BinaryIO, form: str) -> Image.Image:
    """The image with its header read and nothing decoded; raises Unreadable for what is not to be decoded."""
    if form == "HEIC" and not _reads_heic():
        raise Unreadable("HEIC, for which pillow-heif has to be installed (pip install pillow-heif); or convert it to JPEG")
    try:
        return Image.open(file, formats=["HEIF" if form == "HEIC" else form])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(f"more pixels than are safe to decode ({str(error).split(' pixels')[0].split('(')[-1]})") from error


@functools.cache
def _reads_heic() -> bool:
    """Whether there is pillow-heif; it then gives pictures upright, whatever their orientation."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _decode_image(data: bytes, form: str, shrink: int) -> Pixels:
    if form == "JPEG" and data.count(b"\xff\xda") > _SCANS:
        raise Unreadable(f"more than {_SCANS} scans, which would take minutes to decode")
    with open_image(io.BytesIO(data), form) as image, one_at_a_time(image.width * image.height):
        kind = kind_of_image(image)
        if form == "JPEG" and shrink > 1:
            image.draft(None, (image.width // shrink, image.height // shrink))
        image.load()
        return np.ascontiguousarray(upright(_pixels(image, kind), orientation(image)))


def kind_of_image(image: Image.Image) -> Kind:
    """What `decode` will make of an image that is only opened so far."""
    form, mode = (image.format or "").lower().replace("mpo", "jpeg"), image.mode
    if mode in _SIXTEEN or (mode == "I" and form in ("png", "ppm")):
        return Kind(form, "grey", 1, "uint16")
    if mode in ("I", "F"):
        return Kind(form, "grey", 1, "float32")
    if mode == "P":
        return Kind(form, "palette", 1 if _grey_palette(image) else 3, "uint8")
    if mode in ("1", "L", "LA", "La"):
        return Kind(form, "1 bit" if mode == "1" else "grey", 1, "uint8")
    deep = mode in ("RGB", "RGBA") and _bits(image) == 16
    return Kind(form, f"{mode} of 16 bit" if deep else mode, 3, "uint8")


def _bits(image: Image.Image) -> int:
    """Bits per channel in the file, where that can be more than Pillow keeps (PNG, TIFF); else 8."""
    if image.format == "TIFF" and hasattr(image, "tag_v2"):
        return int(max(image.tag_v2.get(258, (8,))))
    tiles = getattr(image, "tile", [])  # what is to be decoded, e.g. with "RGB;16B"
    return 16 if tiles and ";16" in str(tiles[0].args) else 8


def _grey_palette(image: Image.Image) -> bool:
    if image.palette is None:
        return False
    raw, data = image.palette.getdata()
    if raw not in ("RGB", "BGRX", "RGB;L"):
        return False
    values = np.frombuffer(data, np.uint8)
    # "RGB;L" is all reds, then all greens, then all blues; the others go colour by colour.
    width = 4 if raw == "BGRX" else 3
    values = values[: len(values) // width * width]
    colours = values.reshape(width, -1).T if raw == "RGB;L" else values.reshape(-1, width)
    return bool((colours[:, 0] == colours[:, 1]).all() and (colours[:, 0] == colours[:, 2]).all())


def _pixels(image: Image.Image, kind: Kind) -> Pixels:
    """Loaded image -> (H, W, C) of the kind that was foretold."""
    if kind.dtype == "uint16":
        return np.array(image).astype(np.uint16)[..., None]
    if kind.dtype == "float32":
        return np.array(image).astype(np.float32)[..., None]
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    # From equal red, green and blue, Pillow's luminance is that value exactly.
    mode = "L" if kind.channels == 1 else "RGB"
    array = np.array(image if image.mode == mode else image.convert(mode))
    return array[..., None] if kind.channels == 1 else array


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 when there is none or the EXIF block is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block raises nearly anything, and the picture beside it is fine
        return 1
    return value if value in range(1, 9) else 1


def upright(array: Pixels, turned: int) -> Pixels:
    """(H, W, C) as stored -> as seen, for an EXIF orientation 1 to 8 (CIPA DC-008, 4.6.4)."""
    if turned >= 5:
        array = array.swapaxes(0, 1)
    vertical, horizontal = turned in (3, 4, 7, 8), turned in (2, 3, 6, 7)
    return array[:: -1 if vertical else 1, :: -1 if horizontal else 1]


def read_npy(file: BinaryIO) -> Pixels:
    """A .npy file of one image -> (H, W, C) uint8, uint16 or float32."""
    try:
        npy_shape(file, file.seek(0, io.SEEK_END))
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        pickled = "allow_pickle" in str(error) or "Object arrays" in str(error)
        raise Unreadable("holds Python objects (pickle), which could run code" if pickled else f"damaged .npy ({error})") from error
    return np.ascontiguousarray(as_depth(channels_last(array), depth_of(array.dtype)))


def npy_shape(file: BinaryIO, size: int) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """The shape and type that the header of a .npy file of `size` bytes tells, if it holds as much; raises Unreadable."""
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise Unreadable("holds Python objects (pickle), which could run code")
    if min(shape, default=1) < 0:
        raise Unreadable(f"shape {shape} is no image; (H, W) or (H, W, C) is")
    want = file.tell() + math.prod(shape) * dtype.itemsize  # Python's integers, which do not overflow
    if size < want:
        raise Unreadable(f"truncated: {size:,} of {want:,} bytes")
    return shape, dtype


def channels_first(shape: tuple[int, ...]) -> bool:
    """True for (C, H, W): of the first and the last axis, channels are the shorter; the last when they are equal."""
    return len(shape) == 3 and shape[0] < shape[2]


def channels_last(array: Pixels) -> Pixels:
    """(H, W), (H, W, C) or (C, H, W) -> (H, W, C)."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise Unreadable(f"shape {array.shape} is no image; (H, W) or (H, W, C) is")
    if array.ndim == 2:
        return array[..., None]
    return np.moveaxis(array, 0, 2) if channels_first(array.shape) else array


def depth_of(dtype: np.dtype[np.generic]) -> Depth:
    """The depth in which values of this type are kept."""
    if dtype.kind not in "biuf":
        raise Unreadable(f"values of type {dtype} are no pixels")
    if dtype in (np.uint8, np.bool_):
        return "uint8"
    return "uint16" if dtype == np.uint16 else "float32"


def as_depth(array: Pixels, depth: Depth) -> Pixels:
    """A copy of the values as `depth`; True and False become 255 and 0."""
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    with np.errstate(over="ignore"):  # what becomes infinite is refused by `finite`
        return array.astype(depth)


def finite(array: Pixels) -> Pixels:
    """The array itself; raises Unreadable when a value is NaN or infinite, which would end a run."""
    if array.dtype == np.float32:
        bad = array.size - int(np.isfinite(array.astype(np.float32, copy=False)).sum())
        if bad:
            raise Unreadable(f"{bad:,} of {array.size:,} values are NaN or infinite")
    return array


def coerce(array: Pixels, channels: int, dtype: Depth) -> Pixels:
    """(H, W, C) -> what the source promises: grey repeated to RGB, 8 bit times 257 to 16, integers / maximum to float."""
    if array.shape[2] != channels:
        if array.shape[2] != 1 or channels != 3:
            raise Unreadable(f"{array.shape[2]} channels where the others have {channels}")
        array = np.repeat(array, 3, axis=2)
    if array.dtype == dtype:
        return array
    if dtype == "uint16":
        return array.astype(np.uint16) * np.uint16(257)
    top = np.iinfo(np.uint8 if array.dtype == np.uint8 else np.uint16).max
    scaled: npt.NDArray[np.float32] = array.astype(np.float32) / np.float32(top)
    return scaled


def why(error: Exception, form: str, head: bytes, tail: bytes, size: int) -> str:
    """The reason in a few words why an image did not decode."""
    want = stored_size(form, head)
    if want and size < want:
        return f"truncated: {size:,} of {want:,} bytes"
    text = str(error).split("\n")[0]
    if "truncated" in text.lower() or not looks_whole(form, head, tail, size):
        return f"truncated: ends after {size:,} bytes"
    if "cannot identify" in text:
        return f"{form} that Pillow cannot read (damaged, or of an unusual kind)"
    return f"damaged {form}" if "decoder error" in text else f"damaged {form}: {text[:60] or type(error).__name__}"


def file_error(error: OSError) -> str:
    """The reason in a few words why a file did not open."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    return "no permission to read it" if isinstance(error, PermissionError) else (error.strerror or "cannot be read").lower()
