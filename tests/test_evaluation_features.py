from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from byol.data import Unreadable, open_source
from byol.encoders import Input, wrap
from byol.evaluation import features, pixels
from byol.evaluation.features import extract

RNG = np.random.default_rng(0)
RGB = Input(channels=3, size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
IMAGES = RNG.integers(0, 256, (23, 8, 8, 3), dtype=np.uint8)


def small(input=RGB, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(input.channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    net(torch.randn(32, input.channels, 8, 8))  # running statistics that are not the initial ones
    return wrap(net.eval(), input=input, name="small")


@dataclass
class Given:
    """A reader of given images, some of which cannot be read; counts what is read."""

    images: list
    bad: tuple = ()
    reads: int = 0

    def read(self, index):
        self.reads += 1
        if index in self.bad:
            raise Unreadable("torn")
        return self.images[index]


def given(images, bad=(), dtype="uint8"):
    names = [f"{i}.png" for i in range(len(images))]
    like = open_source(np.zeros((1, *images[0].shape), dtype))
    return replace(like, names=names, reader=Given(images, bad), dtype=dtype)


def by_hand(encoder, images):
    """One image at a time, by the encoder's own preprocessing."""
    with torch.no_grad():
        return torch.cat([encoder(encoder.preprocess(image)) for image in images]).numpy()


@pytest.mark.parametrize("batch", [1, 5, 23, 64])
def test_features_are_those_of_each_image_alone_in_order(batch):
    encoder = small()
    found = features(encoder, open_source(IMAGES), batch=batch)
    assert found.x.dtype == np.float32
    assert found.x.shape == (23, encoder.dim)
    assert found.kept.tolist() == list(range(23))
    np.testing.assert_allclose(found.x, by_hand(encoder, IMAGES), rtol=0, atol=1e-5)


def test_images_of_mixed_sizes_get_the_evaluation_view():
    images = [RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((8, 8), (20, 13), (9, 30), (6, 6))]
    encoder = small(replace(RGB, resize=10))
    np.testing.assert_allclose(features(encoder, given(images)).x, by_hand(encoder, images), rtol=0, atol=1e-5)


def test_larger_images_of_one_size_are_resized_as_a_batch():
    images = RNG.integers(0, 256, (7, 19, 14, 3), dtype=np.uint8)
    encoder = small(replace(RGB, resize=9))
    np.testing.assert_allclose(features(encoder, open_source(images), batch=4).x, by_hand(encoder, images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_deeper_images_and_grey_ones_are_read_as_the_encoder_needs_them(dtype):
    images = RNG.integers(0, 65536, (6, 8, 8, 1)).astype(dtype)
    own = Input(channels=3, size=8, mean=(0.5,) * 3, std=(0.3,) * 3, low=0.0, high=65535.0)
    expected = by_hand(small(own), list(images))
    np.testing.assert_allclose(features(small(own), given(list(images), dtype=dtype)).x, expected, rtol=0, atol=1e-5)
    if dtype == "uint16":  # an encoder of 8-bit images sees the same grey
        np.testing.assert_allclose(
            features(small(replace(own, high=255.0)), given(list(images), dtype=dtype)).x, expected, rtol=0, atol=1e-4
        )


def test_the_encoder_is_left_as_it_was():
    encoder = small()
    encoder.train()
    encoder.net[1].eval()  # a frozen part inside a training whole
    modes = [m.training for m in encoder.modules()]
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    x = features(encoder, open_source(IMAGES)).x
    assert [m.training for m in encoder.modules()] == modes
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key]), key
    encoder.eval()
    np.testing.assert_allclose(x, by_hand(encoder, IMAGES), rtol=0, atol=1e-5)
    assert all(p.requires_grad and p.grad is None for p in encoder.parameters())


def test_the_encoder_is_left_as_it_was_when_reading_fails():
    encoder = small().train()
    with pytest.raises(ValueError, match="5 channels"):
        features(encoder, given([np.zeros((8, 8, 5), np.uint8)]))
    assert all(m.training for m in encoder.modules())


@pytest.mark.parametrize("bad", [(0,), (4, 5, 6, 7), (22,), tuple(range(1, 23))])
def test_unreadable_images_are_left_out_and_named_and_rows_stay_in_step(bad):
    encoder = small()
    found = features(encoder, given(list(IMAGES), bad), batch=4)
    good = [i for i in range(23) if i not in bad]
    assert found.kept.tolist() == good
    assert [(s.name, s.reason) for s in found.skipped] == [(f"{i}.png", "torn") for i in bad]
    np.testing.assert_allclose(found.x, by_hand(encoder, IMAGES[good]), rtol=0, atol=1e-5)


def test_every_image_is_decoded_once_for_several_encoders():
    source = given(list(IMAGES))
    encoders = [small(), small(seed=1), small(replace(RGB, mean=(0, 0, 0))), pixels(RGB)]
    found = extract(encoders, source, batch=8)
    assert source.reader.reads == 23
    for encoder, f in zip(encoders, found, strict=True):
        np.testing.assert_array_equal(f.x, features(encoder, open_source(IMAGES), batch=8).x)


def test_bf16_gives_nearly_the_same_features():
    exact, rough = (features(small(), open_source(IMAGES), precision=p).x for p in ("fp32", "bf16"))
    assert not np.array_equal(exact, rough)
    np.testing.assert_allclose(rough, exact, rtol=0, atol=0.03 * np.abs(exact).max())


def test_progress_goes_from_nothing_to_everything():
    seen = []
    features(small(), open_source(IMAGES), batch=10, progress=lambda what, done, total: seen.append((what, done, total)))
    assert seen == [("Features", d, 23) for d in (0, 10, 20, 23)]


def test_pixels_are_the_values_between_0_and_1():
    found = features(pixels(RGB), open_source(IMAGES)).x
    np.testing.assert_allclose(found, np.moveaxis(IMAGES, 3, 1).reshape(23, -1) / 255, rtol=0, atol=1e-6)


def test_pixels_of_large_images_are_shrunk_to_32():
    images = RNG.integers(0, 256, (3, 80, 80, 3), dtype=np.uint8)
    encoder = pixels(replace(RGB, size=64, resize=80))
    found = features(encoder, open_source(images)).x
    assert encoder.dim == found.shape[1] == 3 * 32 * 32
    centre = torch.from_numpy(images[:, 8:72, 8:72]).movedim(3, 1) / 255
    shrunk = interpolate(centre, (32, 32), mode="bilinear", antialias=True)
    np.testing.assert_allclose(found, shrunk.flatten(1), rtol=0, atol=1e-6)
