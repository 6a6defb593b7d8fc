"""The quick look at ordinary headers against Pillow's own."""

import io
import warnings
import zlib

import numpy as np
import pytest
from data_files import EXIF_ORIENTATION, encoded, pixels
from PIL import Image

from byol.data import Unreadable, header, quick


def looked(data, by_pillow=False, path=None):
    """What these bytes, or a file of them at `path`, are found to be, or why that is unreadable."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
        if by_pillow:
            patch.setattr(header, "plain", lambda form, head: None)
        if path is not None:
            path.write_bytes(data)
        try:
            with io.BytesIO(data) if path is None else open(path, "rb", buffering=0) as file:
                return header.inspect(file, len(data), "a.jpg")
        except Unreadable as error:
            return str(error)


def jpegs():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    colour, grey = pixels(37, 21), pixels(37, 21, 1)
    yield from (encoded(colour, "JPEG", quality=q, subsampling=s) for q in (1, 50, 100) for s in (0, 1, 2))
    yield from (encoded(im, "JPEG", progressive=p, optimize=o) for im in (colour, grey) for p in (False, True) for o in (False, True))
    yield from (encoded(colour, "JPEG", **{key: value}) for key, value in (("dpi", (72, 72)), ("comment", b"a word"), ("exif", exif)))
    yield from (encoded(colour, "JPEG", restart_marker_rows=2), encoded(colour, "JPEG", icc_profile=b"x" * 5000))
    yield from (encoded(Image.fromarray(colour).convert("CMYK"), "JPEG"), encoded(colour, "JPEG", keep_rgb=True), encoded(colour, "MPO"))
    qtables = [list(range(300, 364))] * 2  # of 16 bits
    yield encoded(colour, "JPEG", qtables=qtables, quality=50)


def pngs():
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    image = Image.fromarray(pixels(37, 21))
    yield from (encoded(image.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"))
    yield from (encoded(image, "PNG", **{key: value}) for key, value in (("dpi", (72, 72)), ("exif", exif), ("icc_profile", b"x" * 99)))
    yield from (encoded(image.convert("P"), "PNG", transparency=0), encoded(image, "PNG", transparency=(1, 2, 3)))
    yield encoded(image, "PNG", save_all=True, append_images=[image])
    for name, body in ((b"gAMA", bytes(4)), (b"sRGB", b"\0"), (b"gAMA", b"\0"), (b"cHRM", bytes(32)), (b"tEXt", b"exif\0II*\0")):
        data = encoded(image, "PNG")
        chunk = len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)
        yield data[:33] + chunk + data[33:]
    for colour in range(7):  # 16 bits, and colour types that do not exist
        for bits in (4, 8, 16):
            head = (21).to_bytes(4) + (37).to_bytes(4) + bytes([bits, colour, 0, 0, 0])
            data = encoded(image, "PNG")
            yield data[:16] + head + zlib.crc32(b"IHDR" + head).to_bytes(4) + data[33:]


def test_ordinary_files_are_seen_as_pillow_sees_them(tmp_path):
    quickly = 0
    for data in [*jpegs(), *pngs()]:
        found = looked(data, path=tmp_path / "a.jpg")
        assert found == looked(data, by_pillow=True), data[:64]
        form = "JPEG" if data.startswith(b"\xff\xd8") else "PNG"
        quickly += quick.plain(form, data[: quick.FIRST]) is not None
    assert quickly >= 20


def test_damaged_headers_are_seen_as_pillow_sees_them(tmp_path):
    random = np.random.default_rng(0)
    different = 0
    for data in [*jpegs(), *pngs()]:
        for _ in range(12):
            broken = bytearray(data)
            for at in random.integers(2, min(len(data), 700), random.integers(1, 4)):
                broken[at] = random.choice([0, 1, 8, 0xFF, 0xC0, 0xDA, 0xD9, random.integers(256)])
            found = looked(bytes(broken), path=tmp_path / "a.jpg")
            assert found == looked(bytes(broken), by_pillow=True), bytes(broken)
            different += found != looked(data)
    assert different > 100


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_header_that_is_cut_off_anywhere_is_left_to_pillow(form):
    data = encoded(pixels(37, 21), form)
    whole = quick.plain(form, data)
    assert whole is not None
    ends = [end for end in range(8, len(data)) if quick.plain(form, data[:end]) is not None]
    assert ends == list(range(ends[0], len(data)))
    assert all(quick.plain(form, data[:end]) == whole for end in ends)


def test_a_size_that_pillow_warns_of_is_left_to_pillow():
    frame = bytes.fromhex("ffd8 ffc0 000b 08 ffff ffff 01 011100 ffda 0008 01 0100 003f00")
    assert quick.plain("JPEG", frame) is None
    assert quick.plain("JPEG", frame.replace(b"\xff\xff\xff\xff", b"\0\x02\0\x03")) == (quick._JPEG[1], 2, 3)
