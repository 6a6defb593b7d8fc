import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from byol.encoders import Input, evaluation_view, evaluation_views, load, wrap

RGB = Input(channels=3, size=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), resize=28)
GREY = Input(channels=1, size=24, mean=(0.4,), std=(0.2,), resize=28)


def picture(height, width, channels=3, dtype=np.uint8):
    """A smooth random image with edges, the same for the same shape."""
    noise = np.random.default_rng(height * 1000 + width).random((height // 4 + 1, width // 4 + 1, channels))
    big = np.kron(noise, np.ones((4, 4, 1)))[:height, :width]
    return (big * np.iinfo(dtype).max).astype(dtype)


def encoder(input):
    return wrap(torch.nn.Flatten(), input=input)


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (50, 50), (28, 35), (20, 21), (300, 37)])
def test_preprocess_equals_torchvisions_resize_crop_and_normalise(shape):
    image = picture(*shape)
    theirs = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize(28, interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(24),
            v2.Lambda(lambda x: x.clamp(0, 1)),  # bicubic overshoots; an 8-bit image cannot
            v2.Normalize(RGB.mean, RGB.std),
        ]
    )(torch.from_numpy(image).movedim(-1, 0))
    torch.testing.assert_close(encoder(RGB).preprocess(image)[0], theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (90, 100), (20, 33)])
def test_evaluation_view_is_pillows_bicubic_resize_and_centre_crop(shape):
    image = picture(*shape, channels=1)
    # Pillow's float images: its 8-bit ones are rounded and clipped after each of the two passes
    size = tuple(28 if n == min(shape) else int(n * 28 / min(shape)) for n in shape)
    resized = np.array(Image.fromarray(image[:, :, 0].astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC))
    top, left = (round((n - 24) / 2) for n in size)
    theirs = torch.from_numpy(resized[top : top + 24, left : left + 24])
    torch.testing.assert_close(evaluation_view(image, GREY)[0], theirs, rtol=0, atol=1e-3)


def test_an_image_of_the_right_size_is_passed_through_exactly():
    image = picture(28, 28)
    view = evaluation_view(image, RGB)
    assert torch.equal(view, torch.from_numpy(image[2:26, 2:26]).movedim(-1, 0).float())
    assert view.dtype == torch.float32


def test_without_resize_the_short_side_becomes_the_crop():
    i = Input(channels=3, size=24, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert torch.equal(evaluation_view(picture(24, 40), i), torch.from_numpy(picture(24, 40)[:, 8:32]).movedim(-1, 0).float())


def test_every_kind_of_image_gives_the_same_tensor(tmp_path):
    array = picture(40, 50)
    Image.fromarray(array).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    expected = encoder(RGB).preprocess(array)
    kinds = [str(tmp_path / "a.png"), tmp_path / "a.png", data, Image.open(io.BytesIO(data)), torch.from_numpy(array).movedim(-1, 0)]
    for image in kinds:
        assert torch.equal(encoder(RGB).preprocess(image), expected)
    assert torch.equal(encoder(RGB).preprocess([*kinds, array]), expected.expand(6, -1, -1, -1))


def test_images_of_different_sizes_and_kinds_make_one_batch():
    mixed = [picture(40, 50), picture(30, 90, 1), Image.fromarray(picture(33, 33)), picture(26, 29)[:, :, 0]]
    assert encoder(RGB).preprocess(mixed).shape == (4, 3, 24, 24)


def test_a_batch_gives_what_its_images_give_one_by_one():
    images = np.stack([picture(40, 50), picture(40, 50)[::-1]])
    one_by_one = torch.cat([encoder(RGB).preprocess(i) for i in images])
    torch.testing.assert_close(encoder(RGB).preprocess(images), one_by_one, rtol=0, atol=1e-6)
    torch.testing.assert_close(encoder(RGB).preprocess(torch.from_numpy(images).movedim(-1, 1)), one_by_one, rtol=0, atol=1e-6)
    views = evaluation_views(torch.from_numpy(images).movedim(-1, 1), RGB)
    torch.testing.assert_close(views[1], evaluation_view(images[1], RGB), rtol=0, atol=1e-4)


def test_grey_becomes_rgb_and_rgb_becomes_pillows_grey():
    grey, rgb = picture(28, 28, 1), picture(28, 28)
    assert torch.equal(evaluation_view(grey, RGB), evaluation_view(np.repeat(grey, 3, axis=2), RGB))
    assert torch.equal(evaluation_view(grey[:, :, 0], GREY), evaluation_view(grey, GREY))
    pillows = np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.float32)[2:26, 2:26]
    assert (evaluation_view(rgb, GREY)[0] - torch.from_numpy(pillows)).abs().max() <= 0.51


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "I;16", "F", "L"])
def test_a_pil_image_gives_what_its_file_gives(mode, tmp_path):
    array = picture(28, 28)
    if mode == "I;16":
        image = Image.fromarray(picture(28, 28, 1, np.uint16)[:, :, 0])
    elif mode == "RGBA":
        image = Image.fromarray(np.dstack([array, picture(28, 28)[::-1, :, :1]]))
    elif mode == "LA":
        image = Image.fromarray(np.dstack([array[:, :, 0], array[::-1, :, 1]]))
    else:
        image = Image.fromarray(array).convert(mode)
    path = tmp_path / ("a.tif" if mode in ("CMYK", "F") else "a.png")
    image.save(path)
    with Image.open(path) as stored:
        assert stored.mode == mode
    assert torch.equal(encoder(RGB).preprocess(image), encoder(RGB).preprocess(path))


def test_a_pil_image_is_turned_upright():
    array = picture(28, 40)
    stored = Image.fromarray(np.rot90(array).copy())  # a quarter turn to the left, which orientation 6 undoes
    stored.getexif()[0x0112] = 6
    assert torch.equal(encoder(RGB).preprocess(stored), encoder(RGB).preprocess(array))


def test_sixteen_bits_meet_an_encoder_of_eight_bit_images():
    eight = picture(28, 28)
    assert torch.allclose(encoder(RGB).preprocess(eight.astype(np.uint16) * 257), encoder(RGB).preprocess(eight), atol=1e-6)
    swapped = (eight.astype(np.uint16) * 257).astype(">u2")
    assert torch.allclose(encoder(RGB).preprocess(swapped), encoder(RGB).preprocess(eight), atol=1e-6)


def test_values_are_scaled_by_the_encoders_own_range():
    i = Input(channels=1, size=4, mean=(0.0,), std=(1.0,), low=100, high=1100)
    x = np.array([[50, 100, 600, 1100], *[[2000] * 4] * 3], dtype=np.uint16)
    out = encoder(i).preprocess(x)[0, 0]
    torch.testing.assert_close(out[:2], torch.tensor([[0, 0, 0.5, 1], [1, 1, 1, 1]]))


def test_eight_bits_meet_an_encoder_of_floats_up_to_one():
    i = Input(channels=1, size=2, mean=(0.0,), std=(1.0,), low=0, high=1)
    out = encoder(i).preprocess(np.array([[0, 51], [102, 255]], dtype=np.uint8))
    torch.testing.assert_close(out[0, 0], torch.tensor([[0, 0.2], [0.4, 1]]))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 4), np.uint8), "4 channels and the encoder takes 3"),
        (torch.zeros(8, 8, 3), "8 channels and the encoder takes 3.*tensors"),
        (np.random.default_rng(0).random((8, 8, 3)), "trained on 0 to 255"),
        (np.full((8, 8, 3), np.nan), "NaN"),
        (np.zeros((8, 8, 3), bool), "type torch.bool"),
        (np.zeros(8), "shape"),
        (np.zeros((2, 2, 8, 8, 3)), "shape"),
        (torch.zeros(2, 2, 3, 8, 8), "shape"),
        (np.zeros((0, 8, 3)), "cannot be used"),
        (np.array(["a.png"]), "no image"),
        ([], "no images"),
        (3, "a int is no image"),
        (None, "a NoneType is no image"),
        ("no/such/file.png", "no/such/file.png cannot be read as an image: missing"),
        (b"<html>", "the bytes cannot be read"),
    ],
)
def test_what_is_no_image_is_one_clear_sentence(image, message):
    with pytest.raises(ValueError, match=message) as caught:
        encoder(RGB).preprocess(image)
    assert "\n" not in str(caught.value)


def test_a_black_float_image_is_accepted_and_the_original_is_untouched():
    black = np.zeros((28, 28, 3), np.float32)
    encoder(RGB).preprocess(black)
    tensor = torch.full((3, 28, 28), 300.0)
    encoder(RGB).preprocess(tensor)
    assert black.max() == 0
    assert tensor.min() == 300


def test_read_only_arrays_are_accepted():
    image = picture(28, 28)
    image.setflags(write=False)
    assert encoder(RGB).preprocess(image).shape == (1, 3, 24, 24)


def test_what_preprocess_gives_goes_into_the_encoder():
    small = load("small-w8", input=RGB).eval()
    with torch.no_grad():
        assert small(small.preprocess([picture(40, 50)] * 2)).shape == (2, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": 20}, "does not fit"),
        ({"size": 0}, "does not fit"),
        ({"std": (0.2, 0.0, 0.2)}, "standard deviations"),
        ({"mean": (0.5,)}, "3 channels"),
        ({"low": 5, "high": 5}, "empty"),
    ],
)
def test_an_impossible_input_is_refused(changes, message):
    fields = {"channels": 3, "size": 24, "mean": (0.5,) * 3, "std": (0.5,) * 3, **changes}
    with pytest.raises(ValueError, match=message):
        Input(**fields)


def test_an_input_survives_json():
    assert Input.from_json(RGB.to_json()) == RGB
