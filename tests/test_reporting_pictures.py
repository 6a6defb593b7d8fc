import base64
import io

import numpy as np
import pytest
from PIL import Image

from byol.reporting.html import Markup, duration, escape, number, tag
from byol.reporting.pictures import encoded, limits, rgb, sheet, square


def decoded(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))).convert("RGB"))


def test_eight_bit_images_are_shown_as_they_are():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(rgb(image), image)
    np.testing.assert_array_equal(rgb(image[:, :, :1]), image[:, :, [0, 0, 0]])


def test_of_many_channels_the_first_three_are_shown():
    image = np.random.default_rng(0).integers(0, 256, (4, 4, 6)).astype(np.uint8)
    np.testing.assert_array_equal(rgb(image), image[:, :, :3])
    np.testing.assert_array_equal(rgb(image[:, :, :2]), image[:, :, [0, 1, 1]])


def test_other_depths_are_stretched_between_percentiles():
    image = np.linspace(1000, 3000, 100).reshape(10, 10, 1).astype(np.float32)
    low, high = np.percentile(image, [1, 99])
    expected = np.rint(((image - low) / (high - low)).clip(0, 1) * 255)
    np.testing.assert_array_equal(rgb(image)[:, :, :1], expected)


@pytest.mark.parametrize(
    "image", [np.zeros((3, 3, 1), np.float32), np.full((3, 3, 2), np.nan, np.float32), np.full((2, 2, 4), 7, np.uint16)]
)
def test_constant_and_empty_images_have_a_picture(image):
    low, high = limits(image)
    assert (high > low).all()
    assert rgb(image).dtype == np.uint8


def test_a_picture_is_the_centre_and_never_larger_than_the_image():
    image = np.arange(6 * 10 * 3, dtype=np.uint8).reshape(6, 10, 3)
    np.testing.assert_array_equal(square(image, 96), image[:, 2:8])
    assert square(image, 4).shape == (4, 4, 3)
    np.testing.assert_array_equal(square(image, 12, grow=True), image[:, 2:8].repeat(2, 0).repeat(2, 1))


def test_the_sheet_holds_every_picture_row_by_row():
    images = [np.full((8, 8, 3), 40 * i, np.uint8) for i in range(5)]
    uri, columns = sheet(images)
    whole = decoded(uri)
    assert columns == 3
    assert whole.shape == (16, 24, 3)
    for i in range(5):
        y, x = divmod(i, columns)
        assert abs(int(whole[8 * y + 4, 8 * x + 4, 0]) - 40 * i) <= 2


def test_flat_pictures_are_stored_exactly():
    image = np.zeros((16, 16, 3), np.uint8)
    image[4:8, 4:8] = 200
    np.testing.assert_array_equal(decoded(encoded(image)), image)


def test_text_becomes_markup_only_when_it_says_so():
    assert tag("p", "<b>", Markup("<i></i>"), title='"&') == '<p title="&quot;&amp;">&lt;b&gt;<i></i></p>'
    assert tag("img", src="a", alt=None, hidden=True, lazy=False) == '<img src="a" hidden>'


@pytest.mark.parametrize("text", ["\x00", "\x1b[31m", "\u202e", "\ud800", "\u2028"])
def test_what_cannot_be_shown_is_written_as_an_escape(text):
    assert escape(text).isprintable()
    escape(text).encode("utf-8")


@pytest.mark.parametrize(
    ("value", "text"), [(6400, "6,400"), (0.63312, "0.6331"), (1e-5, "1e-05"), (12345.6, "12,346"), (float("nan"), "not finite")]
)
def test_numbers_are_written_for_people(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(41, "41 s"), (1860, "31 min"), (7500, "2 h 05 min")])
def test_durations_are_written_for_people(seconds, text):
    assert duration(seconds) == text
