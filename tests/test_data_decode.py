import contextlib
import io
import struct
import sys
import zlib

import numpy as np
import pytest
from data_files import EXIF_ORIENTATION, encoded, noise, pixels
from PIL import Image, ImageOps

from byol.data import Unreadable, decode, read_image

RGB = pixels(13, 17)
GREY = pixels(13, 17, 1)


def pillow(data, mode):
    """The reference: Pillow's own conversion."""
    return np.array(Image.open(io.BytesIO(data)).convert(mode))


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("JPEG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("BMP", {}), ("PPM", {}), ("JPEG2000", {}), ("GIF", {})],
)
def test_every_common_format_decodes_as_pillow_does(form, options):
    data = encoded(RGB, form, **options)
    ours = read_image(data)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, pillow(data, "RGB"))


def test_a_path_and_its_bytes_give_the_same(tmp_path):
    data = encoded(RGB, "PNG")
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), read_image(data))
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), RGB)


def test_grey_has_one_channel():
    np.testing.assert_array_equal(read_image(encoded(GREY, "PNG")), GREY[..., None])


def test_one_bit_becomes_0_and_255():
    image = Image.fromarray(GREY).convert("1")
    ours = read_image(encoded(image, "PNG"))
    np.testing.assert_array_equal(ours[..., 0], np.array(image) * 255)
    assert set(np.unique(ours)) == {0, 255}


def test_cmyk_becomes_rgb():
    data = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)
    ours = read_image(data)
    np.testing.assert_array_equal(ours, pillow(data, "RGB"))
    assert np.abs(ours.astype(int) - RGB).mean() < 30  # not inverted


def test_a_palette_keeps_its_colours():
    image = Image.fromarray(RGB).quantize(16)
    np.testing.assert_array_equal(read_image(encoded(image, "PNG")), np.array(image.convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_grey_palette_is_grey(form):
    image = Image.fromarray(GREY).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    ours = read_image(encoded(image, form))
    assert ours.shape == (13, 17, 1)
    np.testing.assert_array_equal(ours[..., 0], np.array(image.convert("L")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(mode):
    colour = RGB if mode == "RGBA" else GREY[..., None]
    alpha = pixels(13, 17, 1, seed=5)
    alpha[:4] = 0
    alpha[4:8] = 255
    ours = read_image(encoded(Image.fromarray(np.concatenate([colour, alpha[..., None]], 2), mode), "PNG"))
    weight = alpha[..., None] / 255.0
    assert np.abs(ours - (colour * weight + 255 * (1 - weight))).max() <= 1
    assert (ours[:4] == 255).all()
    np.testing.assert_array_equal(ours[4:8], colour[4:8])


def test_a_transparent_palette_entry_becomes_white():
    image = Image.fromarray(RGB).quantize(8)
    clear = np.array(image) == 3
    ours = read_image(encoded(image, "PNG", transparency=3))
    assert clear.any()
    assert (ours[clear] == 255).all()
    np.testing.assert_array_equal(ours[~clear], np.array(image.convert("RGB"))[~clear])


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_values(form):
    deep = pixels(13, 17, 1, dtype=np.uint16)
    ours = read_image(encoded(deep, form))
    assert ours.dtype == np.uint16
    np.testing.assert_array_equal(ours[..., 0], deep)


def tiff(array, big):
    """An uncompressed grey TIFF of one strip, written by hand in either byte order (TIFF 6.0, section 2)."""
    order = ">" if big else "<"
    raw = array.astype(array.dtype.newbyteorder(order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags = [(256, 4, array.shape[1]), (257, 4, array.shape[0]), (258, 4, 8 * array.itemsize), (259, 4, 1), (262, 4, 1)]
    tags += [(273, 4, 8), (277, 4, 1), (278, 4, array.shape[0]), (279, 4, len(raw)), (339, 4, kind)]
    directory = struct.pack(order + "H", len(tags)) + b"".join(struct.pack(order + "HHII", t, k, 1, v) for t, k, v in tags)
    head = (b"MM" if big else b"II") + struct.pack(order + "HI", 42, 8 + len(raw))
    return head + raw + directory + b"\0\0\0\0"


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
def test_tiff_of_either_byte_order_keeps_its_values(dtype, big):
    deep = (pixels(5, 7, 1, dtype=np.float32) * 30000).astype(dtype)
    ours = read_image(tiff(deep, big))
    assert ours.dtype == (np.uint16 if dtype == np.uint16 else np.float32)
    np.testing.assert_array_equal(ours[..., 0], deep)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_would_end_a_run_are_unreadable(bad):
    image = pixels(5, 7, 1, dtype=np.float32)
    image[2, 3] = bad
    with pytest.raises(Unreadable, match="1 of 35 values are NaN or infinite"):
        read_image(tiff(image, False))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_exif_orientation_is_applied(form, turned):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = turned
    options = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "TIFF": {}}[form]
    data = encoded(RGB, form, exif=exif, **options)
    reference = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(RGB, form, **options)))))
    method = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
    }[turned]  # fmt: skip
    upright = Image.fromarray(reference) if method is None else Image.fromarray(reference).transpose(method)
    np.testing.assert_array_equal(read_image(data), np.array(upright))


@pytest.mark.parametrize("turned", [1, 6])
def test_heic_is_read_upright_where_pillow_heif_is(turned):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:20], picture[20:] = (200, 30, 30), (30, 30, 200)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = turned
    data = encoded(picture, "HEIF", exif=exif.tobytes(), quality=95)
    assert data[4:12] == b"ftypheic"
    ours = read_image(data)
    seen = picture if turned == 1 else np.rot90(picture, -1)  # 6: the first row is seen on the right
    assert ours.shape == seen.shape
    assert np.abs(ours.astype(int) - seen).max() < 12
    with pytest.raises(Unreadable, match="HEIC"):
        read_image(data[: len(data) // 2])


def test_without_pillow_heif_a_heic_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decode._reads_heic.cache_clear()
    with pytest.raises(Unreadable, match="pip install pillow-heif"):
        read_image(b"\0\0\0\x18ftypheic" + bytes(80))
    decode._reads_heic.cache_clear()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's remark on what this test is about
def test_a_damaged_exif_block_does_not_cost_the_picture():
    data = encoded(RGB, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", quality=95)
    np.testing.assert_array_equal(read_image(data), read_image(encoded(RGB, "JPEG", quality=95)))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(form):
    frames = [Image.fromarray(pixels(13, 17, seed=s)) for s in range(3)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(read_image(data), pillow(data, "RGB"))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_shapes_decode(size):
    image = pixels(*size)
    np.testing.assert_array_equal(read_image(encoded(image, "PNG")), image)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file_is_unreadable_and_says_so(form, share):
    data = encoded(noise(), form)
    with pytest.raises(Unreadable, match="truncated"):
        read_image(data[: int(len(data) * share)])


def test_truncation_gives_both_sizes_where_the_format_tells():
    data = encoded(RGB, "WEBP", lossless=True)
    with pytest.raises(Unreadable, match=f"truncated: 100 of {len(data):,} bytes"):
        read_image(data[:100])


def test_no_image_says_what_it_is_instead():
    for data, words in ((b"", "0 bytes"), (b"%PDF-1.7", "a PDF"), (b"hello", "plain text"), (b"\0\1\2\3", "unknown binary")):
        with pytest.raises(Unreadable, match=words):
            read_image(data)


def test_a_missing_file_says_missing(tmp_path):
    with pytest.raises(Unreadable, match=r"^missing$"):
        read_image(tmp_path / "no.png")


def test_a_bomb_is_refused_before_it_is_decoded():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    with pytest.raises(Unreadable, match="more pixels than are safe to decode"):
        read_image(data)


@pytest.mark.parametrize(
    ("stored", "back"),
    [
        (np.uint8([[1, 2], [3, 4]]), np.uint8([[[1], [2]], [[3], [4]]])),
        (np.ones((5, 6, 4), np.float64), np.ones((5, 6, 4), np.float32)),
        (np.moveaxis(RGB, 2, 0), RGB),
        (np.array([[True, False]]), np.uint8([[[255], [0]]])),
    ],
)
def test_npy_files_are_images_too(stored, back):
    file = io.BytesIO()
    np.save(file, stored)
    ours = read_image(file.getvalue())
    assert ours.dtype == back.dtype
    np.testing.assert_array_equal(ours, back)


def test_pickle_in_npy_is_refused():
    file = io.BytesIO()
    np.save(file, np.array([[print, 1]], object), allow_pickle=True)
    with pytest.raises(Unreadable, match="pickle"):
        read_image(file.getvalue())


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's remarks on the damage
def test_damaged_bytes_of_every_format_never_raise_anything_else():
    rng = np.random.default_rng(1)
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"):
        whole = np.frombuffer(encoded(RGB, form), np.uint8)
        for _ in range(40):
            data = whole.copy()
            data[rng.integers(0, len(data), 6)] = rng.integers(0, 256, 6)
            with contextlib.suppress(Unreadable):
                assert read_image(data.tobytes()).ndim == 3
