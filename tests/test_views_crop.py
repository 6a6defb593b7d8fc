"""Crops: pixels against Pillow and torchvision, boxes against their published rules by statistical tests with fixed seeds."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from byol import views
from byol.encoders import Input
from byol.views import boxes, crop, draws
from byol.views.pipeline import Pipeline

N = 4000
BOXES = [(0, 0, 32, 32), (3, 5, 9, 20), (10, 0, 22, 7), (31, 31, 1, 1), (0, 12, 30, 20)]


def photo(height, width, channels=3, seed=0, low=0, high=255):
    """A smooth picture with edges, (H, W, C) uint8."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    x = np.asarray(small).astype(np.int64) + rng.integers(-40, 40, (height, width, 1))
    return np.tile(x.clip(low, high).astype(np.uint8), (1, 1, channels // 3 + 1))[..., :channels]


def pillow(image, box, size):
    """Cut first, resize then; 8-bit for three channels, 32-bit float for one."""
    top, left, height, width = box
    return np.asarray(Image.fromarray(image).crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("size", [16, 32, 48])
def test_the_memory_crop_equals_pillows_float_resize(size):
    x = photo(32, 32)[..., 0].astype(np.float32)
    batch = torch.from_numpy(x)[None, None].expand(len(BOXES), 1, 32, 32)
    ours = crop.resize_batch(batch, torch.tensor(BOXES), size)
    for out, box in zip(ours, BOXES, strict=True):
        np.testing.assert_allclose(out[0].numpy(), pillow(x, box, size), atol=2e-3)  # of 255


@pytest.mark.parametrize("size", [24, 96])
def test_the_memory_crop_equals_torchvisions_resized_crop(size):
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2.functional import resized_crop

    x = torch.from_numpy(photo(150, 200)).permute(2, 0, 1).float()
    found = torch.tensor([(0, 0, 150, 200), (17, 40, 90, 120), (100, 3, 50, 30)])
    ours = crop.resize_batch(x.expand(3, -1, -1, -1), found, size)
    theirs = torch.stack([resized_crop(x, *b, [size, size], InterpolationMode.BICUBIC, antialias=True) for b in found.tolist()])
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=0)  # of 255


def test_host_and_memory_crops_of_8_bits_lie_within_rounding_of_pillow():
    # Between 70 and 190 no pass overshoots 8 bits, where Pillow would clip and float values would not.
    image = photo(40, 60, low=70, high=190)
    plan, ids = views.load("paper", size=24), torch.arange(64)
    host = plan.host([image] * 64, ids, 7, 3)
    memory = plan.crop(torch.from_numpy(image).permute(2, 0, 1).expand(64, -1, -1, -1), ids, 7, 3)
    assert host.dtype == torch.uint8
    assert memory.dtype == torch.float32
    for v in range(2):
        found = boxes.clamped(draws.for_crop(7, 3, v, ids), torch.full((64,), 40), torch.full((64,), 60), plan.pipelines[v])
        theirs = torch.from_numpy(np.stack([pillow(image, b, 24) for b in found.tolist()])).permute(0, 3, 1, 2).float()
        assert (host[v] - theirs).abs().max() <= 1
        assert (memory[v] - theirs).abs().max() <= 1.5


def test_a_real_photo_cropped_on_the_host_differs_from_pillow_in_few_pixels():
    from sklearn.datasets import load_sample_image

    image = load_sample_image("china.jpg")
    for box in [(20, 100, 300, 250), (100, 0, 90, 400), (0, 0, 60, 70)]:
        ours = crop.resize_one(image, box, 96).permute(1, 2, 0).numpy().astype(int)
        difference = np.abs(ours - pillow(image, box, 96))
        assert (difference > 1).mean() < 2e-3
        assert difference.mean() < 0.1


@pytest.mark.parametrize("dialect", ["paper", "torchvision"])
def test_host_and_memory_agree_for_float_images_of_many_channels(dialect):
    images = [photo(33, 41, 13, seed).astype(np.float32) / 100 - 1 for seed in range(8)]
    plan = views.load(dialect, size=20, channels=13)
    host = plan.host(images, torch.arange(8), 0, 0)
    memory = plan.crop(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.arange(8), 0, 0)
    assert host.shape == (2, 8, 13, 20, 20)
    torch.testing.assert_close(host, memory, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.uint8), (4, np.uint8), (1, np.uint16), (3, np.float32)])
def test_host_crops_keep_the_raw_values_of_every_kind_of_image(channels, dtype):
    image = photo(30, 50, channels).astype(dtype) * dtype(100 if dtype is np.uint16 else 1)
    image.flags.writeable = False  # as decoders give it
    plan = views.load("small", size=16, channels=channels)
    out = plan.host([image, image[:29]], torch.tensor([3, 4]), 0, 0)
    assert out.shape == (2, 2, channels, 16, 16)
    assert out.dtype == (torch.uint8 if dtype is np.uint8 else torch.float32)
    assert out.float().max() > 0.5 * image.max()


def test_crops_overshoot_only_until_they_are_scaled():
    step = np.zeros((32, 32, 3), dtype=np.uint8)
    step[:, 16:] = 255
    plan = views.load("crop", size=32)
    crops = plan.crop(torch.from_numpy(step).permute(2, 0, 1)[None], torch.tensor([0]), 0, 0)
    assert crops.max() > 255
    images = plan.images(crops, torch.tensor([0]), 0, 0, Input(channels=3, size=32, mean=(0.5,) * 3, std=(0.2,) * 3))
    assert images.min() == 0
    assert images.max() == 1


def sample(rule, height, width, **changes):
    u = draws.for_crop(11, 0, 0, torch.arange(N))
    fields = {"blur": 0.0, "solarize": 0.0} | changes
    return rule(u, torch.full((N,), height), torch.full((N,), width), Pipeline(**fields)).double().numpy().T


@pytest.mark.parametrize("rule", [boxes.clamped, boxes.redrawn])
def test_area_and_aspect_are_uniform_where_every_box_fits(rule):
    _, _, high, wide = sample(rule, 2000, 2000, max_area=0.5)
    assert stats.kstest(high * wide / 2000**2, stats.uniform(0.08, 0.42).cdf).pvalue > 1e-3
    low, range_ = np.log(3 / 4), np.log(4 / 3) - np.log(3 / 4)
    assert stats.kstest(np.log(wide / high), stats.uniform(low, range_).cdf).pvalue > 1e-3


@pytest.mark.parametrize("rule", [boxes.clamped, boxes.redrawn])
def test_every_place_is_equally_likely_and_every_box_lies_inside(rule):
    top, left, high, wide = sample(rule, 37, 53)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (high >= 1).all()
    assert (wide >= 1).all()
    assert (top + high <= 37).all()
    assert (left + wide <= 53).all()
    same = sample(rule, 40, 40, min_area=0.25, max_area=0.25, aspect=(1.0, 1.0))
    assert (same[2:] == 20).all()
    for side in same[:2]:
        assert stats.chisquare(np.bincount(side.astype(int), minlength=21)).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(37, 53), (20, 90), (120, 30)])
def test_redrawn_boxes_are_distributed_as_torchvisions(height, width):
    from torchvision.transforms import RandomResizedCrop

    ours = sample(boxes.redrawn, height, width)
    image = torch.empty(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(1500)], dtype=float).T
    for a, b in zip(ours, theirs, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(37, 53), (20, 90), (120, 30)])
def test_clamped_boxes_are_distributed_as_in_the_released_code(height, width):
    ours = sample(boxes.clamped, height, width)
    rng = np.random.default_rng(0)
    area = rng.uniform(0.08, 1, N) * height * width
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), N))
    wide = np.minimum(np.round(np.sqrt(area * aspect)), width)
    high = np.minimum(np.round(np.sqrt(area / aspect)), height)
    top, left = rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1)
    for a, b in zip(ours, (top, left, high, wide), strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3


def test_an_image_that_no_box_fits_gets_torchvisions_centre_crop():
    top, left, high, wide = sample(boxes.redrawn, 10, 200, min_area=1.0)
    assert (high == 10).all()
    assert (wide == 13).all()
    assert (left == 93).all()
    assert (top == 0).all()


@pytest.mark.parametrize("rule", [boxes.clamped, boxes.redrawn])
def test_an_image_of_one_pixel_can_be_cropped(rule):
    assert (sample(rule, 1, 1) == np.array([[0], [0], [1], [1]])).all()
